//! Group-relative policy optimisation: from rewards to the gradient on each token's log-probability.
//!
//! Pure functions over slices. Nothing here reads a file, knows text, or holds a tensor: the trainer brings rewards
//! and log-probabilities, and takes [`crate::batch::TokenLosses::gradient`] back into the model. In the order of the data:
//!
//! ```text
//! rewards of a batch -> advantages -> TrainSample -> mini_batches (one for each update)
//!                                                 -> micro_batches (one for each forward and backward) -> token_losses
//! ```
//!
//! An objective is put together of four choices: the advantage ([`AdvantageKind`]), the ratio ([`Ratio`]), the surrogate
//! ([`ObjectiveKind`]) and how tokens share the loss ([`LossNorm`]). One number for each token, its *loss weight*, carries
//! mask and denominators: it is the token's share of the whole update's objective. So neither the loss nor its gradient
//! depends on how an update is cut into micro-batches.

mod advantage;
mod batch;
mod correction;
mod entropy;
mod kl;
mod loss;
mod objective;
mod overlong;
mod ratio;

pub use advantage::{AdvantageKind, Outcome, Outcomes, advantages, has_signal};
pub use batch::{LossNorm, TrainSample, loss_weights, micro_batches, mini_batches, updates};
pub use correction::{Corrected, Correction, CorrectionKind, Reject};
pub use entropy::{EntropyBonus, EntropyState};
pub use kl::{KlEstimator, KlPlace};
pub use loss::{LossConfig, token_losses};
pub use objective::{ClipRange as Clip, Knob, Numbers, Objective, ObjectiveKind, Selection, select};
pub use overlong::Truncated;
pub use ratio::Ratio;
