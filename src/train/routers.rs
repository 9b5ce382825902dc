//! What the routers of a model with experts chose in the updates of a step. What is done about an uneven load is left
//! to the learner.

use crate::batch::{Choices, RouterReplay};
use crate::metrics::Record;
use crate::ops::experts::Load;
use crate::policy::Learner;

/// Most experts in all layers together whose loads are metrics of their own.
const NAMED: usize = 256;

/// The choices of all updates, and their auxiliary losses.
#[derive(Debug, Default)]
pub(super) struct Routers {
    choices: Choices,
    aux_losses: Vec<f64>,
}

impl Routers {
    /// Adds those of an update.
    pub(super) fn add(&mut self, learner: &dyn Learner) {
        learner.choices().into_iter().for_each(|choices| self.choices.add(choices));
        self.aux_losses.extend(learner.aux_loss());
    }

    /// The metrics under `router/`.
    pub(super) fn record(&self, active: usize, replay: RouterReplay, record: &mut Record) {
        let layers: Vec<(usize, &Load)> =
            self.choices.layers.iter().enumerate().filter(|(_, load)| load.rows.iter().any(|rows| *rows > 0)).collect();
        let Some(count) = std::num::NonZero::new(layers.len()).map(|count| count.get() as f64) else { return };
        let (mut entropy, mut most, mut least) = (0.0, 0.0, 0.0);
        let named = layers.iter().map(|(_, load)| load.rows.len()).sum::<usize>() <= NAMED;
        for (layer, load) in layers {
            let choices = load.rows.iter().sum::<u64>() as f64;
            let share = |rows: u64| rows as f64 * load.rows.len() as f64 / choices;
            let shares: Vec<f64> = load.rows.iter().map(|rows| share(*rows)).collect();
            entropy += load.entropy as f64 / Load::NATS / (choices / active as f64);
            most += shares.iter().copied().fold(0.0, f64::max);
            least += shares.iter().copied().fold(f64::INFINITY, f64::min);
            for (expert, share) in shares.into_iter().enumerate().filter(|_| named) {
                record.set(format!("router/load/{layer}/{expert}"), share);
            }
        }
        record.set("router/entropy", entropy / count);
        record.set("router/load_max", most / count);
        record.set("router/load_min", least / count);
        if !self.aux_losses.is_empty() {
            record.set("router/aux_loss", self.aux_losses.iter().sum::<f64>() / self.aux_losses.len() as f64);
        }
        if self.choices.known > 0 {
            let share = |inputs: u64| inputs as f64 / self.choices.known as f64;
            record.set("router/differ_frac", share(self.choices.differing));
            if replay == RouterReplay::Rollout {
                record.set("router/replayed_frac", share(self.choices.replaced));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loads_are_those_of_layers_with_experts() {
        let load = |rows: [u64; 4], entropy: f64| Load { rows: rows.into(), entropy: (entropy * Load::NATS) as u64 };
        let mut routers = Routers { aux_losses: vec![1.0, 2.0], ..Routers::default() };
        // Two rows with two experts each, in two updates.
        for of_update in [[2, 1, 1, 0], [2, 1, 0, 1]] {
            let layers = vec![Load::default(), load(of_update, 2.0), load([1, 1, 1, 1], 1.0)];
            routers.choices.add(&Choices { layers, known: 2, differing: 0, replaced: 1 });
        }
        let mut record = Record::new(1);
        routers.record(2, RouterReplay::Rollout, &mut record);
        for (name, expected) in [
            ("router/entropy", 0.75),
            ("router/load_max", 1.5),
            ("router/load_min", 0.75),
            ("router/load/1/0", 2.0),
            ("router/load/2/3", 1.0),
            ("router/aux_loss", 1.5),
            ("router/differ_frac", 0.0),
            ("router/replayed_frac", 0.5),
        ] {
            assert_eq!(record.get(name), Some(expected), "{name}");
        }
        assert_eq!(record.get("router/load/0/0"), None, "a dense layer has no router");
        let mut dense = Record::new(1);
        Routers::default().record(2, RouterReplay::None, &mut dense);
        assert_eq!(dense.get("router/entropy"), None);
    }
}
