//! What a mixture of experts needs beside products (Shazeer et al. 2017, arXiv:1701.06538): a router that chooses a few
//! experts for each row ([`Router`]), and the rows put into the order of their experts and back ([`Dispatch`]).
//!
//! A row's choice, its weights and its sum depend on that row alone, and the products over the rows of an expert are
//! [`crate::linear::grouped`]: nothing is padded and nothing dropped, so the company of a row changes none of its bits.

mod balance;
pub mod device;
mod dispatch;
mod router;

pub use balance::{LoadBalance, balance_backward};
pub use dispatch::{Dispatch, add_weighed, weigh_back};
pub use router::{GroupScore, Groups, Load, Router, Routing, Scores, sigmoid};
