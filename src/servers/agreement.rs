//! Whether servers have the weights that they were told to read, by what they say of their own tokens: a version is a
//! name that they were given, a log-probability is not.

/// Growth of the divergence over that of the first weights which other arithmetic does not explain.
const GROWTH: f64 = 10.0;
/// Nats a token below which nothing is said, whatever the growth.
const QUIET: f64 = 1e-4;

/// How far servers' log-probabilities are from the trainer's, over the steps of a run.
#[derive(Debug, Default)]
pub(super) struct Agreement {
    /// With the weights that the run began with here.
    first: Option<f64>,
    told: bool,
}

impl Agreement {
    /// Takes a step's divergence in nats a token; the first one's where servers have begun to leave the trainer, which is
    /// said once.
    pub(super) fn left(&mut self, divergence: f64) -> Option<f64> {
        let first = *self.first.get_or_insert(divergence);
        let tell = !self.told && divergence > QUIET && divergence > GROWTH * first;
        self.told |= tell;
        tell.then_some(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_leaves_the_trainer_is_told_of_once_and_other_arithmetic_is_not() {
        for (steps, expected) in [
            // A matrix that is not read anew, as vLLM on a processor does with a tied head.
            ([2.7e-13, 2.5e-6, 6.4e-5, 1.6e-4, 3e-4], Some(3)),
            // bf16 beside fp32, and a server that is right.
            ([2e-3, 1.5e-3, 4e-3, 1e-2, 2e-3], None),
            ([0.0; 5], None),
        ] {
            let mut agreement = Agreement::default();
            let told: Vec<usize> = (0..5).filter(|&step| agreement.left(steps[step]).is_some()).collect();
            assert_eq!(told, expected.into_iter().collect::<Vec<_>>(), "{steps:?}");
        }
    }
}
