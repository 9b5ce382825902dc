//! The `[optim]` table: how the weights move. The optimizer itself is left to [`crate::optim`].

use reckon_datasets::Range::Above;
use reckon_datasets::table;

use crate::optim::{AdamWConfig, MomentKind, Schedule, ScheduleKind};

table! {
    /// How the weights move: AdamW.
    pub struct OptimConfig {
        /// Learning rate after warm-up.
        pub lr: f64 = 3e-4 => Above(0.0),
        /// What it does then.
        pub schedule: ScheduleKind = ScheduleKind::Constant,
        /// Steps from 0 to `lr`.
        pub warmup_steps: u64 = 0,
        /// Share of `lr` left at the end of a linear or cosine schedule.
        pub final_ratio: f64 = 0.1,
        /// Decay of the first moment.
        pub beta1: f64 = 0.9,
        /// Decay of the second moment.
        pub beta2: f64 = 0.95,
        /// Added to the square root of the second moment.
        pub eps: f64 = 1e-8,
        /// Decoupled weight decay, on matrices only.
        pub weight_decay: f64 = 0.0,
        /// Gradients are scaled down to this global norm; 0 leaves them.
        pub max_grad_norm: f64 = 1.0,
        /// A run stops after this many skipped updates in a row.
        pub max_skipped: u64 = 3,
        /// How the moments are kept; `eight_bit` takes a quarter of the memory.
        pub moments: MomentKind = MomentKind::Full,
        /// How far an update moves the bias of a router's choice toward experts with fewer rows than the mean of their
        /// layer (DeepSeek-V3's balance without a loss, there 1e-3); 0 leaves it. For models that have such a bias, and
        /// whose weights are all trained.
        pub balance: f64 = 0.0,
        /// Weight of the auxiliary loss that makes the loads of experts even (that of Switch Transformers, as transformers
        /// computes it), for routers whose scores are shares; it costs a further forward of each update. When absent, as
        /// in transformers, the `router_aux_loss_coef` of the model's `config.json` where its `output_router_logits` is
        /// true, else 0.
        pub router_aux_loss_coef: Option<f64> = None,
    }
}

impl OptimConfig {
    /// Settings of the optimizer.
    pub fn adamw(&self) -> AdamWConfig {
        let [beta1, beta2, eps, weight_decay, max_grad_norm] =
            [self.beta1, self.beta2, self.eps, self.weight_decay, self.max_grad_norm].map(|value| value as f32);
        AdamWConfig { beta1, beta2, eps, weight_decay, max_grad_norm }
    }

    /// The learning rate over a run of `total_steps`.
    pub fn schedule(&self, total_steps: u64) -> Schedule {
        let Self { schedule: kind, lr, warmup_steps, final_ratio, .. } = *self;
        Schedule { kind, lr, warmup_steps, total_steps, final_ratio }
    }
}
