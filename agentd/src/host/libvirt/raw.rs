//! The few calls of libvirt that the lanes need, as owned values.
//!
//! `virt` serves where it does; its bulk statistics leak what libvirt allocated, and it has none for a single domain, so
//! these two are called directly. Nothing is kept from a call but what was copied.
#![allow(unsafe_code, reason = "virt 0.5 has no sound call for these")]

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::ptr;
use std::sync::{Arc, Mutex};
use std::thread;

use horcrux_libvirt::virt::connect::Connect;
use horcrux_libvirt::virt::domain::Domain;
use horcrux_libvirt::virt::error::{Error, ErrorNumber};
use horcrux_libvirt::virt::sys;
use horcrux_proto::name::VmUuid;

use super::events::{Queue, Subscription};
use super::params::{Param, Params};
use super::singly;

/// A connection.
#[derive(Debug)]
pub(super) struct Connection {
    connect: Connect,
    /// Its driver has no bulk statistics.
    singly: Cell<bool>,
}

/// What one call told of one domain.
#[derive(Debug)]
pub(super) struct Record {
    pub(super) uuid: VmUuid,
    pub(super) name: String,
    pub(super) params: Params,
}

/// What a domain is made of; costs a call of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Details {
    pub(super) vcpus: u32,
    pub(super) memory_max_bytes: u64,
    pub(super) persistent: bool,
}

/// What a connection is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Look,
    /// As good as root on the VMs: only guest agents are asked with it.
    Change,
}

/// What to ask a guest agent for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum GuestInfo {
    Os,
    Hostname,
    Users,
    Interfaces,
    Filesystems,
    Load,
}

/// Which statistics to ask for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Wanted {
    /// State and network interfaces: libvirtd knows them itself.
    Known,
    /// Balloon and block devices: QEMU's monitor is asked.
    Monitor,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    #[error(transparent)]
    NotLoaded(#[from] horcrux_libvirt::NotLoaded),
    #[error("start libvirt's event loop")]
    EventLoop(#[source] std::io::Error),
    #[error("libvirt can't ask for it before {0}")]
    TooOld(&'static str),
    #[error("{doing}: {}", .error.message())]
    Libvirt { doing: &'static str, error: Error },
}

/// A silent libvirtd is given up after so many seconds, times so many: a call that waits for it then fails.
const KEEPALIVE_SECONDS: i32 = 3;
const KEEPALIVE_COUNT: u32 = 2;

/// The first libvirt that asks guests for their load.
const LOAD: (u32, &str) = (11_002_000, "version 11.2");

impl Connection {
    /// Connects, and has libvirt loaded for it.
    pub(super) fn open(uri: &str, access: Access) -> Result<Self, CallError> {
        horcrux_libvirt::load()?;
        start_event_loop()?;
        let failed = |doing| move |error| CallError::Libvirt { doing, error };
        let opened = match access {
            Access::Look => Connect::open_read_only(Some(uri)),
            Access::Change => Connect::open(Some(uri)),
        };
        let connect = opened.map_err(failed("connect"))?;
        // Drivers without a daemon, such as test:///, have none to lose.
        if connect.set_keep_alive(KEEPALIVE_SECONDS, KEEPALIVE_COUNT).is_err() {
            tracing::debug!(uri, "no keepalive on this connection");
        }
        Ok(Self { connect, singly: Cell::new(false) })
    }

    /// Has libvirt tell what happens from now on.
    pub(super) fn subscribe(&self, queue: &Arc<Queue>) -> Result<Subscription, CallError> {
        Subscription::new(&self.connect, queue)
    }

    /// Known without a call to libvirtd.
    pub(super) fn is_alive(&self) -> bool {
        self.connect.is_alive().unwrap_or(false)
    }

    /// All domains, running or not.
    pub(super) fn all(&self, wanted: Wanted) -> Result<Vec<Record>, CallError> {
        const DOING: &str = "list domains";
        if !self.singly.get() {
            let mut records = ptr::null_mut();
            // SAFETY: the connection lives; `records` is set to an array that `take` frees.
            let count = unsafe {
                sys::virConnectGetAllDomainStats(self.connect.as_ptr(), wanted.groups(), &raw mut records, 0)
            };
            match take(records, count, DOING) {
                Err(CallError::Libvirt { error, .. }) if error.code().is(ErrorNumber::NoSupport) => {
                    self.singly.set(true);
                }
                taken => return taken,
            }
        }
        singly::all(&self.connect).map_err(|error| CallError::Libvirt { doing: DOING, error })
    }

    /// Those that run, or are paused, and their names: libvirtd knows it itself.
    pub(super) fn active(&self) -> Result<Vec<(VmUuid, String)>, CallError> {
        let domains = self.domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)?;
        Ok(domains.iter().filter_map(|domain| Some((uuid(domain)?, domain.name().ok()?))).collect())
    }

    /// One domain. Where QEMU is asked and does not answer, neither does this.
    pub(super) fn one(&self, uuid: &VmUuid, wanted: Wanted) -> Result<Option<Record>, CallError> {
        Ok(stats(&[self.domain(uuid)?], wanted)?.pop())
    }

    /// Several of them in one call, without those that don't run any more. Where QEMU is asked and one does not answer,
    /// neither does this.
    pub(super) fn some(&self, uuids: &[VmUuid], wanted: Wanted) -> Result<Vec<Record>, CallError> {
        let mut domains = self.domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)?;
        domains.retain(|domain| uuid(domain).is_some_and(|uuid| uuids.contains(&uuid)));
        stats(&domains, wanted)
    }

    pub(super) fn details(&self, uuid: &VmUuid) -> Result<Details, CallError> {
        let failed = |error| CallError::Libvirt { doing: "read what a domain is made of", error };
        let domain = self.domain(uuid)?;
        let persistent = domain.is_persistent().map_err(failed)?;
        Details::of(&domain, persistent).map_err(failed)
    }

    /// The same of all, in a third of the calls.
    pub(super) fn all_details(&self) -> Result<HashMap<VmUuid, Details>, CallError> {
        let lasting = self.domains(sys::VIR_CONNECT_LIST_DOMAINS_PERSISTENT)?;
        let lasting: HashSet<VmUuid> = lasting.iter().filter_map(uuid).collect();
        let of = |domain: &Domain| {
            let uuid = uuid(domain)?;
            // It may be gone since it was listed.
            Some((uuid, Details::of(domain, lasting.contains(&uuid)).ok()?))
        };
        Ok(self.domains(0)?.iter().filter_map(of).collect())
    }

    /// The statistics of the job that runs in a domain. Where QEMU is asked and does not answer, neither does this.
    pub(super) fn job(&self, uuid: &VmUuid) -> Result<Option<Params>, CallError> {
        let domain = self.domain(uuid)?;
        let (mut kind, mut params, mut count) = (0, ptr::null_mut(), 0);
        // SAFETY: the domain lives; the parameters are set to a list that is freed below.
        let got = unsafe {
            sys::virDomainGetJobStats(domain.as_ptr(), &raw mut kind, &raw mut params, &raw mut count, 0)
        };
        if got < 0 {
            return Err(CallError::Libvirt { doing: "read a domain's job", error: Error::last_error() });
        }
        // SAFETY: as libvirt gave them; nothing of them is used after they are freed.
        let copied = unsafe {
            let copied = list(params, count);
            sys::virTypedParamsFree(params, count);
            copied
        };
        let runs = [sys::VIR_DOMAIN_JOB_BOUNDED, sys::VIR_DOMAIN_JOB_UNBOUNDED];
        Ok(u32::try_from(kind).is_ok_and(|kind| runs.contains(&kind)).then_some(copied))
    }

    /// Where the agent in the guest does not answer, neither does this.
    pub(super) fn guest_info(&self, uuid: &VmUuid, info: GuestInfo) -> Result<Params, CallError> {
        if info == GuestInfo::Load && self.connect.lib_version().is_ok_and(|version| version < LOAD.0) {
            return Err(CallError::TooOld(LOAD.1));
        }
        let domain = self.domain(uuid)?;
        let (mut params, mut count) = (ptr::null_mut(), 0);
        // SAFETY: the domain lives; the parameters are set to a list that is freed below.
        let got = unsafe {
            sys::virDomainGetGuestInfo(domain.as_ptr(), info.kind(), &raw mut params, &raw mut count, 0)
        };
        if got < 0 {
            return Err(CallError::Libvirt { doing: "ask the guest agent", error: Error::last_error() });
        }
        // SAFETY: as libvirt gave them; nothing of them is used after they are freed.
        let copied = unsafe {
            let copied = list(params, count);
            sys::virTypedParamsFree(params, count);
            copied
        };
        Ok(copied)
    }

    /// Those that `flags` leave.
    fn domains(&self, flags: u32) -> Result<Vec<Domain>, CallError> {
        let found = self.connect.list_all_domains(flags);
        found.map_err(|error| CallError::Libvirt { doing: "list domains", error })
    }

    fn domain(&self, uuid: &VmUuid) -> Result<Domain, CallError> {
        let found = self.connect.lookup_domain_by_uuid_string(&uuid.to_string());
        found.map_err(|error| CallError::Libvirt { doing: "find a domain", error })
    }
}

impl Details {
    fn of(domain: &Domain, persistent: bool) -> Result<Self, Error> {
        let info = domain.info()?;
        let memory_max_bytes = info.max_mem.saturating_mul(1024);
        Ok(Self { vcpus: info.nr_virt_cpu, memory_max_bytes, persistent })
    }
}

impl GuestInfo {
    fn kind(self) -> u32 {
        match self {
            Self::Os => sys::VIR_DOMAIN_GUEST_INFO_OS,
            Self::Hostname => sys::VIR_DOMAIN_GUEST_INFO_HOSTNAME,
            Self::Users => sys::VIR_DOMAIN_GUEST_INFO_USERS,
            Self::Interfaces => sys::VIR_DOMAIN_GUEST_INFO_INTERFACES,
            Self::Filesystems => sys::VIR_DOMAIN_GUEST_INFO_FILESYSTEM,
            Self::Load => sys::VIR_DOMAIN_GUEST_INFO_LOAD,
        }
    }
}

impl Wanted {
    fn groups(self) -> u32 {
        match self {
            Self::Known => sys::VIR_DOMAIN_STATS_STATE | sys::VIR_DOMAIN_STATS_INTERFACE,
            Self::Monitor => sys::VIR_DOMAIN_STATS_BALLOON | sys::VIR_DOMAIN_STATS_BLOCK,
        }
    }
}

fn uuid(domain: &Domain) -> Option<VmUuid> {
    domain.uuid().ok().map(|uuid| VmUuid::from_bytes(uuid.into_bytes()))
}

/// The domains must be of one connection.
fn stats(domains: &[Domain], wanted: Wanted) -> Result<Vec<Record>, CallError> {
    if domains.is_empty() {
        return Ok(Vec::new());
    }
    // SAFETY: the copies are used while `domains` live.
    let mut list: Vec<_> = domains.iter().map(|domain| unsafe { domain.as_ptr() }).collect();
    list.push(ptr::null_mut());
    let mut records = ptr::null_mut();
    // SAFETY: `list` is a null-terminated array of live domains; `records` is set to an array that `take` frees.
    let count =
        unsafe { sys::virDomainListGetStats(list.as_mut_ptr(), wanted.groups(), &raw mut records, 0) };
    take(records, count, "read a domain's statistics")
}

/// Keepalive and its timeouts are served by one event loop of the process, which must be there before the first connection.
fn start_event_loop() -> Result<(), CallError> {
    static STARTED: Mutex<bool> = Mutex::new(false);
    let mut started = STARTED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if *started {
        return Ok(());
    }
    // libvirt's own handler prints every error to standard error.
    horcrux_libvirt::virt::error::clear_error_callback();
    let registered = horcrux_libvirt::virt::event::event_register_default_impl();
    registered.map_err(|error| CallError::Libvirt { doing: "make an event loop", error })?;
    let turn = || {
        while let Ok(()) = horcrux_libvirt::virt::event::event_run_default_impl() {}
        tracing::error!("libvirt's event loop ended: a libvirtd that hangs is noticed by deadlines only");
    };
    thread::Builder::new().name("libvirt-events".to_owned()).spawn(turn).map_err(CallError::EventLoop)?;
    *started = true;
    Ok(())
}

/// Copies the records of a bulk call and frees them.
fn take(
    records: *mut sys::virDomainStatsRecordPtr,
    count: i32,
    doing: &'static str,
) -> Result<Vec<Record>, CallError> {
    let count =
        usize::try_from(count).map_err(|_| CallError::Libvirt { doing, error: Error::last_error() })?;
    let mut taken = Vec::with_capacity(count);
    for at in 0..count {
        // SAFETY: libvirt gave `count` records; each points to a live record with its parameters.
        let record = unsafe { &**records.add(at) };
        let mut uuid = [0; 16];
        // SAFETY: the record's domain lives as long as the record; a raw UUID is of 16 bytes.
        let (known, name) = unsafe {
            let known = sys::virDomainGetUUID(record.dom, uuid.as_mut_ptr()) == 0;
            (known, text(sys::virDomainGetName(record.dom)))
        };
        if known {
            // SAFETY: as for the record.
            let params = unsafe { list(record.params, record.nparams) };
            taken.push(Record { uuid: VmUuid::from_bytes(uuid), name, params });
        }
    }
    if !records.is_null() {
        // SAFETY: it was given by libvirt, and nothing of it is used any more.
        unsafe { sys::virDomainStatsRecordListFree(records) };
    }
    Ok(taken)
}

/// # Safety
///
/// The parameters and their number must be as libvirt gave them.
pub(super) unsafe fn list(params: *const sys::virTypedParameter, count: i32) -> Params {
    let count = usize::try_from(count).unwrap_or(0);
    if params.is_null() || count == 0 {
        return Params::default();
    }
    // SAFETY: libvirt says that there are so many.
    let list = unsafe { std::slice::from_raw_parts(params, count) };
    let one = |param: &sys::virTypedParameter| {
        // SAFETY: a field's name ends with a null.
        let name = unsafe { text(param.field.as_ptr()) };
        // SAFETY: `type_` says which member of the union is set.
        let value = unsafe {
            match u32::try_from(param.type_).ok()? {
                sys::VIR_TYPED_PARAM_INT => Param::Signed(param.value.i.into()),
                sys::VIR_TYPED_PARAM_UINT => Param::Unsigned(param.value.ui.into()),
                sys::VIR_TYPED_PARAM_LLONG => Param::Signed(param.value.l),
                sys::VIR_TYPED_PARAM_ULLONG => Param::Unsigned(param.value.ul),
                sys::VIR_TYPED_PARAM_DOUBLE => Param::Fraction(param.value.d),
                sys::VIR_TYPED_PARAM_STRING => Param::Text(text(param.value.s)),
                _ => return None,
            }
        };
        Some((name, value))
    };
    Params::new(list.iter().filter_map(one).collect())
}

/// # Safety
///
/// `from` must be null or a string that ends with a null.
pub(super) unsafe fn text(from: *const std::ffi::c_char) -> String {
    if from.is_null() {
        return String::new();
    }
    // SAFETY: as the caller says.
    unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned()
}
