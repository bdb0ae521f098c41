//! The filter on connections that the guest opens to the host.
//!
//! With user networking, QEMU opens the guest's connections. So the guest would reach services that only this host should
//! reach: those on its loopback, and link-local addresses, at one of which a cloud has its metadata and credentials. libslirp
//! can refuse the former, but QEMU has no option for it. A seccomp filter (seccomp_unotify(2)) sends each connect and each
//! sendto with an address to a process beside QEMU, which decides by the address. It restricts user networking, and is not a
//! jail for QEMU: other system calls, and another thread that changes the address meanwhile, are not checked.

use std::{
    fs::{self, File},
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{fs::FileExt, net::UnixStream},
    },
    time::Duration,
};

use nix::libc;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

use crate::base::{HostAccess, resolv_conf};

/// Of linux/audit.h: the architecture whose system calls are filtered.
const AUDIT_ARCH: u32 = if cfg!(target_arch = "aarch64") {
    0xc000_00b7
} else {
    0xc000_003e
};

/// The answer of the deciding process.
const READY: &str = "ready";

const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest address that is read: struct sockaddr_in6.
const LONGEST_ADDRESS: usize = 28;

/// The addresses of clouds' metadata services beside 169.254.169.254: Alibaba; Amazon, Google, Oracle and Scaleway for IPv6
/// (their documentation).
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42)),
];

const DNS: u16 = 53;

/// Installs the filter in this process, and sends its listener over `socket` to process `decides`; between fork and
/// exec. If that fails, the process starts without it, and the error is sent instead.
pub(super) fn install(socket: BorrowedFd<'_>, decides: u32) {
    let listener = install_filter(decides);
    let error = listener.as_ref().err().and_then(io::Error::raw_os_error);
    let words = [
        std::process::id(),
        error.unwrap_or_default().cast_unsigned(),
    ];
    let bytes = words.map(u32::to_ne_bytes);
    let listener = listener.ok();
    let listener = listener.as_ref().map(AsFd::as_fd);
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = SendAncillaryBuffer::new(&mut space);
    let fds = listener.as_slice();
    if !fds.is_empty() {
        rights.push(SendAncillaryMessage::ScmRights(fds));
    }
    let _ = rustix::net::sendmsg(
        socket,
        &[IoSlice::new(bytes.as_flattened())],
        &mut rights,
        SendFlags::empty(),
    );
}

#[expect(
    unsafe_code,
    reason = "prctl and seccomp only enter the kernel; the program lives until the kernel has copied it"
)]
fn install_filter(decides: u32) -> io::Result<OwnedFd> {
    const fn statement(code: u32, k: u32) -> libc::sock_filter {
        jump(code, k, 0, 0)
    }
    #[expect(clippy::cast_possible_truncation, reason = "codes have 16 bits")]
    const fn jump(code: u32, k: u32, jt: u8, jf: u8) -> libc::sock_filter {
        libc::sock_filter {
            code: code as u16,
            jt,
            jf,
            k,
        }
    }
    const LOAD: u32 = libc::BPF_LD | libc::BPF_W | libc::BPF_ABS;
    const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    const RETURN: u32 = libc::BPF_RET | libc::BPF_K;
    // Of struct seccomp_data: the number at 0, the architecture at 4, the arguments from 16 on, each in two halves.
    let mut filter = [
        statement(LOAD, 4),
        jump(EQUAL, AUDIT_ARCH, 0, 7),
        statement(LOAD, 0),
        jump(EQUAL, number(libc::SYS_connect), 6, 0),
        jump(EQUAL, number(libc::SYS_sendto), 0, 4),
        // Without an address, the call sends on a connected socket.
        statement(LOAD, 16 + 4 * 8),
        jump(EQUAL, 0, 0, 3),
        statement(LOAD, 16 + 4 * 8 + 4),
        jump(EQUAL, 0, 0, 1),
        statement(RETURN, libc::SECCOMP_RET_ALLOW),
        statement(RETURN, libc::SECCOMP_RET_USER_NOTIF),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as libc::c_ushort,
        filter: filter.as_mut_ptr(),
    };
    let listener = unsafe {
        // With Yama, only ancestors may read the memory of a process that has not allowed it.
        libc::prctl(libc::PR_SET_PTRACER, libc::c_ulong::from(decides));
        if libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 {
            return Err(io::Error::last_os_error());
        }
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            libc::SECCOMP_FILTER_FLAG_NEW_LISTENER,
            &raw const program,
        )
    };
    match i32::try_from(listener) {
        Ok(listener) if listener >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(listener) }),
        _ => Err(io::Error::last_os_error()),
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "numbers of system calls are small"
)]
const fn number(call: libc::c_long) -> u32 {
    call as u32
}

/// Waits until the process beside QEMU decides.
///
/// # Errors
///
/// When it does not, and the guest reaches everything; in words.
pub(super) fn wait_until_it_decides(mut socket: &UnixStream) -> Result<(), String> {
    let mut answer = String::new();
    let _ = socket.set_read_timeout(Some(ANSWER_TIMEOUT));
    match socket.read_to_string(&mut answer) {
        Ok(_) if answer == READY => Ok(()),
        Ok(0) => Err("the process that is to decide has ended".to_owned()),
        Ok(_) => Err(answer),
        Err(error) => Err(error.to_string()),
    }
}

/// Decides which connections a QEMU may open, whose listener comes over `socket`, until it ends.
pub(super) fn decide(mut socket: UnixStream, open: &HostAccess) {
    let listener = receive(&socket);
    let answer = match &listener {
        Ok(_) => READY.to_owned(),
        Err(error) => error.to_string(),
    };
    let _ = socket.write_all(answer.as_bytes());
    let _ = socket.shutdown(Shutdown::Both);
    drop(socket);
    if let Ok(listener) = listener {
        while decide_once(&listener, open).is_ok() {}
    }
}

/// The listener, if this process can read the arguments of a call.
fn receive(socket: &UnixStream) -> io::Result<OwnedFd> {
    if !can_continue() {
        return Err(io::Error::other("Linux 5.5 or later is needed"));
    }
    let mut bytes = [0; 8];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut rights = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(&mut bytes)],
        &mut rights,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    if received.bytes < bytes.len() || received.flags.contains(ReturnFlags::CTRUNC) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let [pid, error] = [0, 4].map(|at| {
        let word = [0, 1, 2, 3].map(|byte: usize| bytes[at + byte]);
        i32::from_ne_bytes(word)
    });
    let listener = rights.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
        _ => None,
    });
    let listener = listener.ok_or_else(|| io::Error::from_raw_os_error(error))?;
    memory(pid)?;
    Ok(listener)
}

/// Returns `true` when the kernel can let a call through (SECCOMP_USER_NOTIF_FLAG_CONTINUE).
fn can_continue() -> bool {
    let name = rustix::system::uname();
    let release = name.release().to_string_lossy();
    let mut numbers = release.split(['.', '-']).map_while(|it| it.parse().ok());
    let version: (u32, u32) = (
        numbers.next().unwrap_or_default(),
        numbers.next().unwrap_or_default(),
    );
    version >= (5, 5)
}

fn memory(pid: i32) -> io::Result<File> {
    File::open(format!("/proc/{pid}/mem"))
}

/// # Errors
///
/// When no process is left that could ask.
#[expect(
    unsafe_code,
    reason = "both structures are the kernel's, zero before it reads them, and as long as the call says"
)]
fn decide_once(listener: &OwnedFd, open: &HostAccess) -> io::Result<()> {
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    let fd = listener.as_raw_fd();
    if unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) } != 0 {
        let error = io::Error::last_os_error();
        return match error.raw_os_error() {
            // The asking process has ended.
            Some(libc::EINTR | libc::ENOENT) => Ok(()),
            _ => Err(error),
        };
    }
    let allowed = match address(&asked) {
        Ok(Some(address)) => {
            is_allowed(address, open) || (address.ip().is_loopback() && is_of_forward(&asked))
        }
        Ok(None) => true,
        Err(error) => {
            let _ = writeln!(
                io::stderr(),
                "k3s-vm: what the guest connects to cannot be looked at, and is allowed: {error}"
            );
            true
        }
    };
    let mut answer = libc::seccomp_notif_resp {
        id: asked.id,
        val: 0,
        error: if allowed { 0 } else { -libc::ECONNREFUSED },
        flags: if allowed {
            libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE as u32
        } else {
            0
        },
    };
    unsafe { libc::ioctl(fd, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut answer) };
    Ok(())
}

/// The destination of the call; `None` for address families other than IPv4 and IPv6.
fn address(asked: &libc::seccomp_notif) -> io::Result<Option<SocketAddr>> {
    let arguments = asked.data.args;
    let [at, length] = if libc::c_long::from(asked.data.nr) == libc::SYS_connect {
        [arguments[1], arguments[2]]
    } else {
        [arguments[4], arguments[5]]
    };
    let mut bytes = [0; LONGEST_ADDRESS];
    let length = usize::try_from(length).map_or(LONGEST_ADDRESS, |it| it.min(LONGEST_ADDRESS));
    let pid = i32::try_from(asked.pid).map_err(io::Error::other)?;
    memory(pid)?.read_exact_at(&mut bytes[..length], at)?;
    Ok(parsed(&bytes))
}

/// Returns `true` for an answer of a forwarded UDP port: its socket alone is bound to loopback.
fn is_of_forward(asked: &libc::seccomp_notif) -> bool {
    let (pid, fd) = (asked.pid, asked.data.args[0]);
    let link = fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap_or_default();
    let link = link.to_string_lossy();
    let inode = link
        .strip_prefix("socket:[")
        .and_then(|it| it.strip_suffix(']'));
    let sockets = fs::read_to_string(format!("/proc/{pid}/net/udp")).unwrap_or_default();
    let loopback = format!("{:08X}:", u32::from_ne_bytes([127, 0, 0, 1]));
    // The columns of proc_pid_net(5): the second is the local address, the tenth the inode.
    sockets.lines().any(|line| {
        let columns: Vec<&str> = line.split_whitespace().collect();
        columns.get(1).is_some_and(|it| it.starts_with(&loopback))
            && columns.get(9).copied() == inode
    })
}

/// A struct sockaddr_in or sockaddr_in6.
fn parsed(bytes: &[u8; LONGEST_ADDRESS]) -> Option<SocketAddr> {
    let [family_0, family_1, port_0, port_1, rest @ ..] = *bytes;
    let port = u16::from_be_bytes([port_0, port_1]);
    let address: IpAddr = match i32::from(u16::from_ne_bytes([family_0, family_1])) {
        libc::AF_INET => Ipv4Addr::from(*rest.first_chunk::<4>()?).into(),
        libc::AF_INET6 => Ipv6Addr::from(*rest[4..].first_chunk::<16>()?).into(),
        _ => return None,
    };
    Some((address.to_canonical(), port).into())
}

fn is_allowed(address: SocketAddr, open: &HostAccess) -> bool {
    let (ip, port) = (address.ip(), address.port());
    let of_this_host = ip.is_loopback() || ip.is_unspecified();
    let link_local = match ip {
        IpAddr::V4(ip) => ip.is_link_local(),
        IpAddr::V6(ip) => ip.is_unicast_link_local(),
    };
    let closed = of_this_host || link_local || METADATA.contains(&ip);
    !closed || (of_this_host && open.includes(port)) || (port == DNS && is_dns_server(ip))
}

/// Returns `true` for a DNS server of the host. Without one, user networking forwards to loopback.
fn is_dns_server(ip: IpAddr) -> bool {
    let listed = resolv_conf::dns_servers(&resolv_conf::of_host());
    if listed.is_empty() {
        ip.is_loopback()
    } else {
        listed.iter().any(|it| it.address == ip)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, UdpSocket},
        os::unix::process::CommandExt,
        process::Command,
        thread,
    };

    use super::*;

    #[test]
    fn loopback_and_link_local_are_closed() {
        let of = |address: &str, open: &str| {
            let address: SocketAddr = address.parse().expect(address);
            let address = (address.ip().to_canonical(), address.port()).into();
            is_allowed(address, &open.parse().expect(open))
        };
        for closed in [
            "127.0.0.1:22",
            "127.9.9.9:5432",
            "0.0.0.0:22",
            "[::1]:22",
            "[::]:22",
            "169.254.169.254:80",
            "[fe80::1]:80",
            "[fd00:ec2::254]:80",
            "[fd20:ce::254]:80",
            "[fd00:c1::a9fe:a9fe]:80",
            "[fd00:42::42]:80",
            "100.100.100.200:80",
            // Addresses of IPv4 in the form of IPv6.
            "[::ffff:127.0.0.1]:22",
            "[::ffff:169.254.169.254]:80",
            "[::ffff:0.0.0.0]:22",
        ] {
            assert!(!of(closed, "none"), "{closed}");
            assert!(!of(closed, "5433"), "{closed}");
        }
        for open in ["192.0.2.1:22", "10.0.0.1:443", "[2001:db8::1]:80"] {
            assert!(of(open, "none"), "{open}");
        }
        assert!(of("127.0.0.1:5432", "5432"));
        assert!(of("[::1]:5432", "all"));
        // The host's port 53, not the cloud's address.
        assert!(!of("169.254.169.254:80", "all"));
    }

    #[test]
    fn parses_socket_addresses_of_the_kernel() {
        let parse = |family: i32, rest: &[u8]| {
            let mut bytes = [0; LONGEST_ADDRESS];
            bytes[..2].copy_from_slice(&u16::try_from(family).expect("small").to_ne_bytes());
            bytes[2..2 + rest.len()].copy_from_slice(rest);
            parsed(&bytes).map(|it| it.to_string())
        };
        assert_eq!(
            parse(libc::AF_INET, &[0, 80, 127, 0, 0, 1]).as_deref(),
            Some("127.0.0.1:80")
        );
        let mapped = [
            &[0, 80, 0, 0, 0, 0][..],
            &[0; 10],
            &[255, 255, 127, 0, 0, 1],
        ]
        .concat();
        assert_eq!(
            parse(libc::AF_INET6, &mapped).as_deref(),
            Some("127.0.0.1:80")
        );
        assert_eq!(parse(libc::AF_UNIX, b"/run/x"), None);
    }

    /// bash, whose `/dev/tcp` and `/dev/udp` connect, under the filter, and python3, which sends.
    #[test]
    fn open_ports_are_reachable() {
        let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
        let other = TcpListener::bind("127.0.0.1:0").expect("a port");
        let udp = UdpSocket::bind("127.0.0.1:0").expect("a port");
        let [open, closed] = [&tcp, &other].map(|it| it.local_addr().expect("bound").port());
        let to = udp.local_addr().expect("bound").port();
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{open} || exit 1
            (exec 3<>/dev/tcp/127.0.0.1/{closed}) && exit 2
            (exec 3<>/dev/tcp/0.0.0.0/{closed}) && exit 3
            (exec 3<>/dev/tcp/169.254.169.254/80) && exit 4
            (exec 3<>/dev/udp/127.0.0.1/{closed}) && exit 5
            python3 - <<'.' || exit 6
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.sendto(b'open', ('127.0.0.1', {to}))
try:
    s.sendto(b'closed', ('127.0.0.1', {closed}))
    raise SystemExit(1)
except ConnectionRefusedError:
    pass
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(('127.0.0.1', 0))
s.sendto(b'an answer', ('127.0.0.1', {closed}))
a, b = socket.socketpair()
a.send(b'connected')
assert b.recv(9) == b'connected'
.
            exit 0"
        );
        let (ours, theirs) = UnixStream::pair().expect("a pair");
        let access = HostAccess::default().with([open, to]);
        thread::spawn(move || decide(theirs, &access));
        let mut command = Command::new("bash");
        command.args(["-c", &script]);
        let (socket, decides) = (ours.try_clone().expect("cloned"), std::process::id());
        #[expect(unsafe_code, reason = "as for QEMU")]
        unsafe {
            command.pre_exec(move || {
                install(socket.as_fd(), decides);
                Ok(())
            });
        }
        let child = command.spawn().expect("bash runs");
        assert_eq!(wait_until_it_decides(&ours), Ok(()));
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(0));
        let mut bytes = [0; 16];
        assert_eq!(udp.recv(&mut bytes).expect("received"), 4);
    }
}
