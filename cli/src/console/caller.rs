//! Whose program is at the other end of a connection within this host. A port lets in everybody who is logged in; the kernel
//! knows who each of its sockets belongs to.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::process::geteuid;
use tokio::net::TcpStream;

/// Connections of this network namespace, each end of one within it on a line of its own.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];

const ESTABLISHED: &str = "01";

/// Whether it is who runs this program, as far as can be known: where it can't, nobody is let in.
pub(super) fn is_us(connection: &TcpStream) -> bool {
    let (Ok(theirs), Ok(ours)) = (connection.peer_addr(), connection.local_addr()) else { return false };
    // A table that isn't there has no line: a kernel without IPv6.
    let tables = TABLES.iter().filter_map(|table| fs::read_to_string(table).ok());
    let owners: Vec<u32> = tables.filter_map(|table| owner(&table, theirs, ours)).collect();
    owners == [geteuid().as_raw()]
}

/// The user whose socket has `local` as its own end and `remote` as the other. One that was closed is nobody's any more: it
/// stands there as root's.
fn owner(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let (from, to, state) = (columns.nth(1)?, columns.next()?, columns.next()?);
        if !(same(from, local) && same(to, remote) && state == ESTABLISHED) {
            return None;
        }
        // After the queues, the timer and the retransmits; then the timeouts.
        let (owner, inode) = (columns.nth(3)?, columns.nth(1)?);
        if inode == "0" { None } else { owner.parse().ok() }
    })
}

/// An IPv4 address in an IPv6 socket is the same address.
fn same(written: &str, address: SocketAddr) -> bool {
    let found = socket(written);
    found.is_some_and(|(ip, port)| port == address.port() && ip.to_canonical() == address.ip().to_canonical())
}

/// `0100007F:1F46`: the address as words of four bytes, each a number in this machine's order of bytes.
fn socket(written: &str) -> Option<(IpAddr, u16)> {
    let (ip, port) = written.split_once(':')?;
    let port = u16::from_str_radix(port, 16).ok()?;
    let word = |at: usize| Some(u32::from_str_radix(ip.get(at * 8..at * 8 + 8)?, 16).ok()?.to_ne_bytes());
    let ip = match ip.len() {
        8 => Ipv4Addr::from(word(0)?).into(),
        32 => {
            let mut bytes = [0; 16];
            for at in 0..4 {
                bytes[at * 4..at * 4 + 4].copy_from_slice(&word(at)?);
            }
            Ipv6Addr::from(bytes).into()
        }
        _ => return None,
    };
    Some((ip, port))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Linux 6.12, little-endian.
    const TCP: &str = "\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:170C 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 5001 1 0 100 0 0 10 0
   1: 0100007F:170C 0100007F:9C40 01 00000000:00000000 00:00000000 00000000  1000        0 5002 1 0 20 4 30 10 -1
   2: 0100007F:9C40 0100007F:170C 01 00000000:00000000 00:00000000 00000000  1001        0 5003 1 0 20 4 30 10 -1
   3: 0100007F:9C43 0100007F:170C 05 00000000:00000000 03:00001770 00000000     0        0 0 3 0000000000000000
   4: 0100007F:9C44 0100007F:170C 01 00000000:00000000 00:00000000 00000000     0        0 0 1 0 20 4 30 10 -1
";
    const TCP6: &str = "\
  sl  local_address                         remote_address                        st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0000000000000000FFFF00000100007F:9C41 0000000000000000FFFF00000100007F:170C 01 00000000:00000000 00:00000000 00000000  1002        0 5004 1 0 20 4 30 10 -1
   1: 00000000000000000000000001000000:9C42 00000000000000000000000001000000:170C 01 00000000:00000000 00:00000000 00000000  1003        0 5005 1 0 20 4 30 10 -1
";

    #[test]
    #[cfg(target_endian = "little")]
    fn the_other_ends_owner_is_found() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let ours = at("127.0.0.1:5900");
        assert_eq!(owner(TCP, at("127.0.0.1:40000"), ours), Some(1001));
        assert_eq!(owner(TCP, ours, at("127.0.0.1:40000")), Some(1000));
        assert_eq!(owner(TCP6, at("127.0.0.1:40001"), ours), Some(1002));
        assert_eq!(owner(TCP6, at("[::1]:40002"), at("[::1]:5900")), Some(1003));
        assert_eq!(owner(TCP, at("127.0.0.1:40001"), ours), None);
        for closed in ["127.0.0.1:40003", "127.0.0.1:40004"] {
            assert_eq!(owner(TCP, at(closed), ours), None, "{closed} is root's");
        }
        assert_eq!(owner("", ours, ours), None);
        assert_eq!(owner("sl\n 0: x y\n 1: 0100007F: :\n", ours, ours), None);
    }
}
