//! The process that acts on one VM: see [`crate::orders::hand`], which starts it.

use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use anyhow::{Context as _, anyhow, bail};
use clap::Parser;
use horcrux_envelope::v1::ConsoleKind;
use horcrux_libvirt::virt::connect::Connect;
use horcrux_libvirt::virt::domain::Domain;
use horcrux_libvirt::virt::error::{Error, clear_error_callback};
use horcrux_libvirt::virt::stream::Stream;
use horcrux_libvirt::virt::sys::VIR_DOMAIN_CONSOLE_FORCE;
use horcrux_local::clock;
use horcrux_privd::packets::{MAX_QUESTION, Packets};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::{read, retry_on_intr, write};
use rustix::net::{AddressFamily, Shutdown, SocketFlags, SocketType, shutdown, socketpair};
use uuid::Uuid;

use crate::orders::hand::{Open, Said};

/// privd has deadlines of its own, and ends this when they have passed.
const PATIENCE: Duration = Duration::from_secs(3600);
/// What is passed on at once. Half of it is taken from one side before the other has taken it.
const PIECE: usize = 32 << 10;

/// Acts on one VM, for a `horcrux-privd` that is its stdin's other end.
#[derive(Debug, Parser)]
struct Cli {
    libvirt_uri: String,
    vm: Uuid,
}

/// A console that is open, as long as this process is.
struct Console {
    descriptor: OwnedFd,
    /// What passes its bytes on, where libvirt doesn't.
    serial: Option<Arc<Serial>>,
}

/// A serial line: on one side libvirt's stream, which blocks, and on the other one end of a pair of sockets.
///
/// The connection is read by nobody but `out`, so what nobody takes from the pair stays with libvirtd and the guest.
struct Serial {
    stream: Stream,
    ours: OwnedFd,
    /// Held while what the guest said waits to be taken. Sending reads what else came on the connection, into memory: so
    /// who doesn't listen isn't listened to.
    telling: Mutex<()>,
}

pub(crate) fn run(arguments: impl Iterator<Item = std::ffi::OsString>) -> anyhow::Result<()> {
    let cli = Cli::parse_from(arguments);
    // It was started by a link, whose name it would have.
    rustix::thread::set_name(c"horcrux-hand").context("take a name")?;
    let stdin = io::stdin().as_fd().try_clone_to_owned().context("take the socket")?;
    let packets = Packets::new(stdin, clock::now() + PATIENCE);
    let refuse = |error: &anyhow::Error| {
        let refused = Some(format!("{error:#}").chars().take(1000).collect());
        packets.write(&Said { refused, ..Said::default() }).context("say why")
    };
    let (connect, domain, name) = match found(&cli) {
        Ok(found) => found,
        Err(error) => return refuse(&error),
    };
    packets.write(&Said { name, ..Said::default() }).context("say that it is there")?;
    let told: Open = packets.read(MAX_QUESTION).context("hear what to do")?;
    let console = match open(&connect, &domain, told.kind()) {
        Ok(console) => console,
        Err(error) => return refuse(&error),
    };
    packets.write_with(&Said::default(), console.descriptor.as_fd()).context("hand it over")?;
    if let Some(serial) = &console.serial {
        serial.start()?;
    }
    // Nothing is said any more: what comes is the end, of privd or of the serial line.
    let mut ends = vec![PollFd::new(&packets, PollFlags::IN)];
    ends.extend(console.serial.iter().map(|serial| PollFd::new(&serial.ours, PollFlags::empty())));
    retry_on_intr(|| poll(&mut ends, None)).context("wait for its end")?;
    shutdown(&console.descriptor, Shutdown::Both).context("close it")
}

fn found(cli: &Cli) -> anyhow::Result<(Connect, Domain, String)> {
    horcrux_libvirt::load()?;
    // It would print each error.
    clear_error_callback();
    let connect = Connect::open(Some(&cli.libvirt_uri)).map_err(said("connect to libvirt"))?;
    let domain = connect.lookup_domain_by_uuid(cli.vm).map_err(said("find the VM"))?;
    let name = domain.name().map_err(said("ask the VM's name"))?;
    Ok((connect, domain, name))
}

fn open(connect: &Connect, domain: &Domain, kind: ConsoleKind) -> anyhow::Result<Console> {
    let wanted = match kind {
        ConsoleKind::Vnc => "vnc",
        ConsoleKind::Spice => "spice",
        ConsoleKind::Serial => return serial(connect, domain),
        ConsoleKind::Unspecified => bail!("there is no such console"),
    };
    let xml = domain.xml_desc(0).map_err(said("read what the VM is made of"))?;
    let index = display(&xml, wanted)?;
    let descriptor = horcrux_libvirt::open_graphics(domain, index).map_err(said("open the display"))?;
    Ok(Console { descriptor, serial: None })
}

fn serial(connect: &Connect, domain: &Domain) -> anyhow::Result<Console> {
    let stream = Stream::new(connect, 0).map_err(said("make a stream"))?;
    // Whoever has it, such as a forgotten `virsh console`, must not keep others from it.
    domain.open_console(None, &stream, VIR_DOMAIN_CONSOLE_FORCE).map_err(said("open the serial line"))?;
    let pair = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None);
    let (ours, descriptor) = pair.context("make a pair of sockets")?;
    let serial = Arc::new(Serial { stream, ours, telling: Mutex::new(()) });
    Ok(Console { descriptor, serial: Some(serial) })
}

/// The number of the first display of the kind, among all.
fn display(xml: &str, wanted: &str) -> anyhow::Result<u32> {
    let document = roxmltree::Document::parse(xml).map_err(|_| anyhow!("libvirt's XML can't be read"))?;
    let devices = document.root_element().children().find(|node| node.has_tag_name("devices"));
    let displays = devices.iter().flat_map(|d| d.children()).filter(|d| d.has_tag_name("graphics"));
    let kinds: Vec<_> = displays.filter_map(|node| node.attribute("type")).collect();
    let place = kinds.iter().position(|kind| *kind == wanted).and_then(|place| u32::try_from(place).ok());
    let has = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
    place.with_context(|| format!("the VM has no display for {wanted}, but for {has}"))
}

impl Serial {
    /// Passes on what both sides say, until one ends: then our end of the pair is shut down.
    fn start(self: &Arc<Self>) -> anyhow::Result<()> {
        for (name, pass) in [("serial-out", Self::out as fn(&Self)), ("serial-in", Self::feed)] {
            let serial = Arc::clone(self);
            let passing = move || {
                pass(&serial);
                // The other side may have been first.
                if let Err(error) = shutdown(&serial.ours, Shutdown::Both) {
                    tracing::debug!(%error, "a serial line was closed before");
                }
            };
            thread::Builder::new().name(name.to_owned()).spawn(passing).context("start a thread")?;
        }
        Ok(())
    }

    fn out(&self) {
        let mut piece = vec![0; PIECE];
        while let Ok(count) = self.stream.recv(&mut piece) {
            let mut rest =
                usize::try_from(count).ok().and_then(|count| piece.get(..count)).unwrap_or_default();
            if rest.is_empty() {
                return;
            }
            let _telling = self.telling.lock().unwrap_or_else(PoisonError::into_inner);
            while !rest.is_empty() {
                let Ok(taken) = retry_on_intr(|| write(&self.ours, rest)) else { return };
                rest = rest.get(taken..).unwrap_or_default();
            }
        }
    }

    fn feed(&self) {
        let mut piece = vec![0; PIECE];
        while let Ok(count @ 1..) = retry_on_intr(|| read(&self.ours, &mut piece)) {
            drop(self.telling.lock().unwrap_or_else(PoisonError::into_inner));
            let mut rest = piece.get(..count).unwrap_or_default();
            while !rest.is_empty() {
                let Ok(sent) = self.stream.send(rest) else { return };
                rest = usize::try_from(sent).ok().and_then(|sent| rest.get(sent..)).unwrap_or_default();
            }
        }
    }
}

fn said(doing: &'static str) -> impl FnOnce(Error) -> anyhow::Error {
    move |error| anyhow!("{doing}: {}", error.message())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_display_is_found_by_its_place_among_all() {
        let xml = "<domain><name>&lt;graphics type='vnc'/></name><metadata><graphics type='vnc'/></metadata><devices>\
            <video/><graphics type='spice'><listen type='none'/></graphics><graphics type='vnc'/><graphics type='vnc'/>\
            </devices></domain>";
        assert_eq!(display(xml, "spice").unwrap(), 0);
        assert_eq!(display(xml, "vnc").unwrap(), 1);
        let no = |xml, wanted| display(xml, wanted).unwrap_err().to_string();
        assert_eq!(no(xml, "sdl"), "the VM has no display for sdl, but for spice, vnc, vnc");
        assert_eq!(no("<domain/>", "vnc"), "the VM has no display for vnc, but for nothing");
        assert!(display("<domain>", "vnc").is_err());
    }
}
