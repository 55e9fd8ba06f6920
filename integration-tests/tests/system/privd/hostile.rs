//! An agent that was replaced by a hostile one: it has the agent's user id, the socket, and every order that it was ever
//! given.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd as _, BorrowedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, send, sendmsg, socket_with,
};

use super::*;

fn connected(socket: &Path) -> OwnedFd {
    let connection =
        socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None).unwrap();
    connect(&connection, &SocketAddrUnix::new(socket).unwrap()).unwrap();
    connection
}

/// One that was left doesn't take it any more.
fn say(connection: &OwnedFd, packet: &[u8]) {
    let said = send(connection, packet, SendFlags::NOSIGNAL);
    assert!(matches!(said, Ok(_) | Err(Errno::PIPE | Errno::CONNRESET)), "{said:?}");
}

fn kept(directory: &Path) -> usize {
    fs::read_dir(directory).unwrap().count()
}

#[test]
fn nothing_it_sends_is_carried_out_or_stops_what_a_controller_orders() {
    let mut orders = Orders::new();
    let host = Host::start(&orders, Mode::Manage);
    host.takes_orders(&mut orders);
    let (socket, pid) = (host.socket(), host.daemon.pid().unwrap());
    let proc = PathBuf::from(format!("/proc/{}", pid.as_raw_nonzero()));
    let before = kept(&proc.join("fd"));

    // Any bytes, in packets that are none, too long, too many, and never the last; a linear congruence, so that a failure
    // can be had again.
    let mut state = 1_u64;
    for _ in 0..400 {
        let connection = connected(&socket);
        for _ in 0..3 {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let length = usize::try_from(state >> 33).unwrap() % 700;
            let bytes: Vec<u8> = (0..length).map(|at| (state >> (at % 56)).to_le_bytes()[0]).collect();
            say(&connection, &bytes);
            say(&connection, &[&[1], bytes.as_slice()].concat());
        }
    }
    say(&connected(&socket), &[0; 90_000]);

    // Descriptors that nobody asked for.
    let null = fs::File::open("/dev/null").unwrap();
    for _ in 0..50 {
        let connection = connected(&socket);
        let copies: [BorrowedFd<'_>; 64] = [null.as_fd(); 64];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        assert!(control.push(SendAncillaryMessage::ScmRights(&copies)));
        sendmsg(&connection, &[IoSlice::new(&[0])], &mut control, SendFlags::NOSIGNAL).unwrap();
    }

    // Orders that it kept, and such as it would like to be.
    let old = orders_open(&mut orders);
    let forged = orders.signer.sign(&old);
    orders.answer(&socket, &old);
    for number in 0..300 {
        let mut signed = forged.clone();
        let bit = number * 7 % (signed.envelope.len() * 8);
        signed.envelope[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(settled(&socket, &signed).unwrap().answer.status(), OrderStatus::Refused);
        assert!(settled(&socket, &forged).unwrap().answer.repeated);
    }
    let lines = host.audit().len();
    assert!(lines < 200, "{lines} lines: what anybody can cause is counted");

    // Connections that say nothing are left after a while, and until then others wait: none is refused.
    let idle: Vec<OwnedFd> = (0..100).map(|_| connected(&socket)).collect();
    host.takes_orders(&mut orders);
    drop(idle);

    wait_until("that it has let go of everything", || {
        let now = (kept(&proc.join("fd")), kept(&proc.join("task")));
        anyhow::ensure!(now.0 <= before && now.1 == 1, "{before} {now:?}");
        Ok(())
    })
    .unwrap();
    let status = fs::read_to_string(proc.join("status")).unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 64 << 10, "{peak} KiB");
    host.takes_orders(&mut orders);
}
