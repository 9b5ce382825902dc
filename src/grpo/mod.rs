//! Group-relative policy optimisation: from rewards to the gradient on each token's log-probability.
//!
//! Pure functions over slices. Nothing here reads a file, knows text, or holds a tensor: the trainer brings rewards
//! and log-probabilities, and takes [`crate::batch::TokenLosses::gradient`] back into the model. In the order of the data:
//!
//! ```text
//! rewards of a group -> advantages -> TrainSample -> mini_batches (one an update)
//!                                                 -> micro_batches (one a forward and backward) -> token_losses
//! ```
//!
//! One number for each token, its *loss weight*, carries mask and denominators: it is the token's share of the whole update's
//! objective. So neither the loss nor its gradient depends on how an update is cut into micro-batches.

mod advantage;
mod batch;
mod loss;
mod objective;
mod overlong;

pub use advantage::{AdvantageKind, advantages, has_signal};
pub use batch::{LossNorm, TrainSample, loss_weights, micro_batches, mini_batches, updates};
pub use loss::{KlEstimator, LossConfig, token_losses};
pub use objective::Objective;
pub use overlong::Truncated;
