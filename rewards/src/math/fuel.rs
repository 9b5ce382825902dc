//! The budget of one verdict. Whatever can grow with the text spends from it, so that a verdict's time is bounded by a
//! constant and the length of the completion, whatever the model writes.

use std::cell::Cell;

/// What one verdict may spend; a unit is about 10 ns.
const BUDGET: u64 = 200_000;

/// The units that are left.
#[derive(Debug)]
pub(crate) struct Fuel(Cell<u64>);

impl Fuel {
    pub(crate) fn new() -> Self {
        Self(Cell::new(BUDGET))
    }

    /// Takes `units`; `None`, for good, once they are more than is left.
    pub(crate) fn spend(&self, units: u64) -> Option<()> {
        let left = self.0.get().checked_sub(units);
        self.0.set(left.unwrap_or(0));
        left.map(|_| ())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.get() == 0
    }
}
