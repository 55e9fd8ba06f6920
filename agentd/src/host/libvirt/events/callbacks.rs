//! The functions that libvirt calls. Each copies what it is given into the queue, and returns.
#![allow(unsafe_code, reason = "virt 0.5 has no domain events")]

use std::ffi::{c_char, c_int, c_ulonglong, c_void};
use std::mem::transmute;
use std::sync::Arc;

use horcrux_libvirt::virt::connect::Connect;
use horcrux_libvirt::virt::error::Error;
use horcrux_libvirt::virt::sys;
use horcrux_proto::name::VmUuid;

use super::{Queue, Said, Told};
use crate::host::libvirt::raw::{CallError, list, text};

/// libvirt calls while this lives.
#[derive(Debug)]
pub(in crate::host::libvirt) struct Subscription {
    connect: Connect,
    ids: Vec<c_int>,
}

type Callback = sys::virConnectDomainEventGenericCallback;
type Id = sys::virDomainEventID;

impl Subscription {
    /// The event loop must run. A kind of event that this libvirt doesn't have is left out, except the first.
    pub(in crate::host::libvirt) fn new(connect: &Connect, queue: &Arc<Queue>) -> Result<Self, CallError> {
        let mut made = Self { connect: connect.clone(), ids: Vec::new() };
        for (at, (id, callback)) in callbacks().into_iter().enumerate() {
            match made.register(id, callback, queue) {
                Ok(id) => made.ids.push(id),
                Err(error) if at == 0 => {
                    return Err(CallError::Libvirt { doing: "listen for events", error });
                }
                Err(error) => tracing::debug!(id, error = error.message(), "no such events"),
            }
        }
        Ok(made)
    }

    pub(in crate::host::libvirt) fn is_alive(&self) -> bool {
        self.connect.is_alive().unwrap_or(false)
    }

    fn register(&self, id: Id, callback: Callback, queue: &Arc<Queue>) -> Result<c_int, Error> {
        let opaque = Arc::into_raw(Arc::clone(queue)).cast_mut().cast::<c_void>();
        // SAFETY: the connection lives; no domain means all. `opaque` is one reference to the queue, which `forget` gives
        // back when libvirt won't use it any more. The callback is of the type that this kind of event has.
        let registered = unsafe {
            sys::virConnectDomainEventRegisterAny(
                self.connect.as_ptr(),
                std::ptr::null_mut(),
                c_int::try_from(id).unwrap_or(-1),
                callback,
                opaque,
                Some(forget),
            )
        };
        if registered < 0 {
            let error = Error::last_error();
            // SAFETY: libvirt keeps nothing of a registration that failed.
            unsafe { forget(opaque) };
            return Err(error);
        }
        Ok(registered)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        for id in &self.ids {
            // SAFETY: the connection lives until after this, whether or not libvirtd does.
            if unsafe { sys::virConnectDomainEventDeregisterAny(self.connect.as_ptr(), *id) } < 0 {
                tracing::debug!(error = Error::last_error().message(), "events not ended in good order");
            }
        }
    }
}

/// What is listened to; without the first nothing is.
fn callbacks() -> [(Id, Callback); 14] {
    // SAFETY: libvirt's one registration takes all callbacks as the generic one, and calls each with what its kind of event
    // has. The left side of each line says which type that is, and the function is of that type.
    unsafe {
        [
            (
                sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                transmute::<sys::virConnectDomainEventCallback, Callback>(Some(lifecycle)),
            ),
            (sys::VIR_DOMAIN_EVENT_ID_REBOOT, Some(reboot)),
            (
                sys::VIR_DOMAIN_EVENT_ID_WATCHDOG,
                transmute::<sys::virConnectDomainEventWatchdogCallback, Callback>(Some(watchdog)),
            ),
            (
                sys::VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON,
                transmute::<sys::virConnectDomainEventIOErrorReasonCallback, Callback>(Some(io_error)),
            ),
            (
                sys::VIR_DOMAIN_EVENT_ID_GRAPHICS,
                transmute::<sys::virConnectDomainEventGraphicsCallback, Callback>(Some(graphics)),
            ),
            (
                sys::VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2,
                transmute::<sys::virConnectDomainEventBlockJobCallback, Callback>(Some(block_job)),
            ),
            (
                sys::VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE,
                transmute::<sys::virConnectDomainEventBalloonChangeCallback, Callback>(Some(balloon_change)),
            ),
            (
                sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED,
                transmute::<sys::virConnectDomainEventDeviceAddedCallback, Callback>(Some(device_added)),
            ),
            (
                sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED,
                transmute::<sys::virConnectDomainEventDeviceRemovedCallback, Callback>(Some(device_removed)),
            ),
            (
                sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVAL_FAILED,
                transmute::<sys::virConnectDomainEventDeviceRemovalFailedCallback, Callback>(Some(
                    device_removal_failed,
                )),
            ),
            (
                sys::VIR_DOMAIN_EVENT_ID_AGENT_LIFECYCLE,
                transmute::<sys::virConnectDomainEventAgentLifecycleCallback, Callback>(Some(guest_agent)),
            ),
            (
                sys::VIR_DOMAIN_EVENT_ID_MIGRATION_ITERATION,
                transmute::<sys::virConnectDomainEventMigrationIterationCallback, Callback>(Some(
                    migration_iteration,
                )),
            ),
            (
                sys::VIR_DOMAIN_EVENT_ID_JOB_COMPLETED,
                transmute::<sys::virConnectDomainEventJobCompletedCallback, Callback>(Some(job_completed)),
            ),
            (
                sys::VIR_DOMAIN_EVENT_ID_BLOCK_THRESHOLD,
                transmute::<sys::virConnectDomainEventBlockThresholdCallback, Callback>(Some(
                    block_threshold,
                )),
            ),
        ]
    }
}

/// # Safety
///
/// `dom` must be as libvirt gave it to a callback, and `opaque` the queue that was registered.
unsafe fn put(dom: sys::virDomainPtr, opaque: *mut c_void, said: Said) {
    let mut uuid = [0; 16];
    // SAFETY: the domain lives while it is told of; a raw UUID is of 16 bytes.
    let (known, name) =
        unsafe { (sys::virDomainGetUUID(dom, uuid.as_mut_ptr()) == 0, text(sys::virDomainGetName(dom))) };
    // SAFETY: the registration holds a reference to the queue.
    let queue = unsafe { &*opaque.cast::<Queue>() };
    if known {
        queue.put(Told { uuid: VmUuid::from_bytes(uuid), name, said });
    }
}

unsafe extern "C" fn forget(opaque: *mut c_void) {
    // SAFETY: the reference that was made for this registration, which has ended.
    drop(unsafe { Arc::from_raw(opaque.cast::<Queue>()) });
}

unsafe extern "C" fn lifecycle(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) -> c_int {
    // SAFETY: as libvirt gave it; so in all below.
    unsafe { put(dom, opaque, Said::Lifecycle { event, detail }) };
    0
}

unsafe extern "C" fn reboot(_: sys::virConnectPtr, dom: sys::virDomainPtr, opaque: *mut c_void) {
    // SAFETY: see `lifecycle`.
    unsafe { put(dom, opaque, Said::Reboot) };
}

unsafe extern "C" fn watchdog(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    action: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: see `lifecycle`.
    unsafe { put(dom, opaque, Said::Watchdog { action }) };
}

unsafe extern "C" fn io_error(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    _path: *const c_char,
    device: *const c_char,
    action: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: see `lifecycle`.
    unsafe { put(dom, opaque, Said::IoError { device: text(device), action, reason: text(reason) }) };
}

unsafe extern "C" fn graphics(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    phase: c_int,
    _local: *const sys::virDomainEventGraphicsAddress,
    remote: *const sys::virDomainEventGraphicsAddress,
    _scheme: *const c_char,
    _subject: *const sys::virDomainEventGraphicsSubject,
    opaque: *mut c_void,
) {
    // SAFETY: null, or an address with two strings that may be null.
    let peer = unsafe { remote.as_ref().map(|peer| (text(peer.node), text(peer.service))) };
    let peer = match peer {
        Some((node, service)) if !service.is_empty() && !node.is_empty() => format!("{node} port {service}"),
        Some((node, service)) => node + &service,
        None => String::new(),
    };
    // SAFETY: see `lifecycle`.
    unsafe { put(dom, opaque, Said::Graphics { phase, peer }) };
}

unsafe extern "C" fn block_job(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    disk: *const c_char,
    job: c_int,
    status: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: see `lifecycle`.
    unsafe { put(dom, opaque, Said::BlockJob { disk: text(disk), job, status }) };
}

unsafe extern "C" fn balloon_change(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    kib: c_ulonglong,
    opaque: *mut c_void,
) {
    // SAFETY: see `lifecycle`.
    unsafe { put(dom, opaque, Said::BalloonChange { kib }) };
}

unsafe extern "C" fn device_added(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    device: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: see `lifecycle`.
    unsafe { put(dom, opaque, Said::DeviceAdded { device: text(device) }) };
}

unsafe extern "C" fn device_removed(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    device: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: see `lifecycle`.
    unsafe { put(dom, opaque, Said::DeviceRemoved { device: text(device) }) };
}

unsafe extern "C" fn device_removal_failed(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    device: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: see `lifecycle`.
    unsafe { put(dom, opaque, Said::DeviceRemovalFailed { device: text(device) }) };
}

unsafe extern "C" fn guest_agent(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    state: c_int,
    _reason: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: see `lifecycle`.
    unsafe { put(dom, opaque, Said::GuestAgent { state }) };
}

unsafe extern "C" fn migration_iteration(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    iteration: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: see `lifecycle`.
    unsafe { put(dom, opaque, Said::MigrationIteration { iteration }) };
}

unsafe extern "C" fn job_completed(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    params: sys::virTypedParameterPtr,
    count: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: see `lifecycle`; libvirt frees the parameters.
    unsafe { put(dom, opaque, Said::JobCompleted(list(params, count))) };
}

unsafe extern "C" fn block_threshold(
    _: sys::virConnectPtr,
    dom: sys::virDomainPtr,
    device: *const c_char,
    _path: *const c_char,
    threshold: c_ulonglong,
    excess: c_ulonglong,
    opaque: *mut c_void,
) {
    // SAFETY: see `lifecycle`.
    unsafe { put(dom, opaque, Said::BlockThreshold { device: text(device), threshold, excess }) };
}
