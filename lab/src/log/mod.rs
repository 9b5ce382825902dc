//! Metrics in the files of other programs: TensorBoard's events and the offline format of Weights & Biases. Both are a
//! few records of protobuf in a frame with checksums, and are written here by hand. Their bytes are compared with what the
//! two programs' own readers say by `scripts/read_logs.py`.

mod checksum;
mod protobuf;
mod tensorboard;
mod wandb;

pub use tensorboard::TensorBoard;
pub use wandb::{Wandb, WandbRun, run_id};
