//! Which VMs are whose: each is one connection's, whichever told of it first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use horcrux_proto::name::VmUuid;

/// Shared by all lanes that list VMs. What a connection told of stays its own while it is lost.
#[derive(Clone, Debug, Default)]
pub struct Known(Arc<Mutex<HashMap<VmUuid, Arc<str>>>>);

impl Known {
    #[cfg(feature = "libvirt")]
    /// Makes it `by`'s; where it is another's already, says whose.
    pub(crate) fn claim(&self, uuid: VmUuid, by: &Arc<str>) -> Result<(), Arc<str>> {
        let mut known = self.lock();
        let holder = known.entry(uuid).or_insert_with(|| Arc::clone(by));
        if holder == by { Ok(()) } else { Err(Arc::clone(holder)) }
    }

    #[cfg(feature = "libvirt")]
    /// It is gone from `by`.
    pub(crate) fn give_up(&self, uuid: &VmUuid, by: &Arc<str>) {
        let mut known = self.lock();
        if known.get(uuid) == Some(by) {
            known.remove(uuid);
        }
    }

    #[cfg(feature = "libvirt")]
    /// Whether it belongs to another than `who`.
    pub(crate) fn is_of_another(&self, uuid: &VmUuid, who: &Arc<str>) -> bool {
        self.lock().get(uuid).is_some_and(|holder| holder != who)
    }

    pub(crate) fn has(&self, uuid: &VmUuid) -> bool {
        self.lock().contains_key(uuid)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<VmUuid, Arc<str>>> {
        // A map is whole after any panic: each change is one step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[cfg(feature = "libvirt")]
mod tests {
    use super::*;

    #[test]
    fn a_vm_is_of_who_told_of_it_first_until_it_is_given_up() {
        let (known, uuid) = (Known::default(), VmUuid::from_bytes([1; 16]));
        let (system, session): (Arc<str>, Arc<str>) = ("qemu:///system".into(), "qemu:///session".into());
        assert_eq!(known.claim(uuid, &system), Ok(()));
        assert_eq!(known.claim(uuid, &system), Ok(()));
        assert_eq!(known.claim(uuid, &session), Err(Arc::clone(&system)));
        assert!(known.is_of_another(&uuid, &session) && !known.is_of_another(&uuid, &system));
        known.give_up(&uuid, &session);
        assert!(known.has(&uuid), "it isn't its own to give up");
        known.give_up(&uuid, &system);
        assert_eq!(known.claim(uuid, &session), Ok(()));
    }
}
