//! What the states of things have in common.

use crate::v1::VmState;

impl VmState {
    /// It is known to have no process: nothing of it is measured, and it has no screen and no serial line.
    #[must_use]
    pub const fn is_off(self) -> bool {
        match self {
            Self::ShutOff | Self::Crashed => true,
            Self::Unspecified
            | Self::Running
            | Self::Blocked
            | Self::Paused
            | Self::ShuttingDown
            | Self::PmSuspended => false,
        }
    }
}
