//! The system calls of the broker, each as a function that cannot be misused. All the unsafe code that deals with the kernel is here.

use libc::{c_int, c_long, pid_t, sock_filter, sock_fprog};
use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::ptr::null_mut;
use std::time::Duration;

/// `SECCOMP_IOCTL_NOTIF_SET_FLAGS` of `linux/seccomp.h`: wake the peer on this processor, since it waits for us (since Linux 6.6).
const SYNC_WAKE_UP: u64 = 1;

/// The result of a call, or its error.
pub(super) fn check(value: c_long) -> io::Result<c_long> {
    if value < 0 { Err(io::Error::last_os_error()) } else { Ok(value) }
}

/// The errno of an error of this module.
pub(super) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

/// A call of the confined process that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub(super) struct Notice {
    pub(super) id: u64,
    /// The thread that calls.
    pub(super) thread: pid_t,
    pub(super) args: [u64; 6],
}

/// Takes the next call that waits.
///
/// # Errors
/// `ENOENT` if it was given up meanwhile, `EINTR`; others mean that no more will come.
pub(super) fn receive(listener: &OwnedFd) -> io::Result<Notice> {
    // SAFETY: all zeros is a valid value of this plain structure, and what the kernel wants to find.
    let mut notice: libc::seccomp_notif = unsafe { zeroed() };
    // SAFETY: the descriptor is open and the structure lives through the call.
    check(unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut notice) }.into())?;
    Ok(Notice { id: notice.id, thread: notice.pid as pid_t, args: notice.data.args })
}

/// Whether the call still waits, so that its thread's number still means that thread.
pub(super) fn still_waits(listener: &OwnedFd, id: u64) -> bool {
    // SAFETY: the descriptor is open and the number lives through the call.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &raw const id) == 0 }
}

/// Answers a call: 0, or an errno. False if it no longer waits.
pub(super) fn answer(listener: &OwnedFd, id: u64, errno: i32) -> bool {
    let answer = libc::seccomp_notif_resp { id, val: 0, error: -errno, flags: 0 };
    // SAFETY: the descriptor is open and the structure lives through the call.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SEND, &raw const answer) == 0 }
}

/// Asks for wake-ups that stay on the processor; kernels that cannot are none the worse.
pub(super) fn wake_up_here(listener: &OwnedFd) {
    // SAFETY: the descriptor is open; the argument is a number. A refusal changes nothing.
    unsafe { libc::ioctl(listener.as_raw_fd(), libc::SECCOMP_IOCTL_NOTIF_SET_FLAGS, SYNC_WAKE_UP) };
}

fn install(program: &[sock_filter], flags: libc::c_ulong) -> io::Result<c_long> {
    let program =
        sock_fprog { len: u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?, filter: program.as_ptr().cast_mut() };
    // SAFETY: the program lives through the call; the kernel copies and checks it, and does not write to it.
    check(unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) })
}

/// Puts the calling thread under a filter.
pub(super) fn seccomp(program: &[sock_filter]) -> io::Result<()> {
    install(program, 0).map(drop)
}

/// Puts the calling thread under a filter and returns the descriptor of its notifications (closed on exec).
pub(super) fn seccomp_with_listener(program: &[sock_filter]) -> io::Result<OwnedFd> {
    let listener = install(program, libc::SECCOMP_FILTER_FLAG_NEW_LISTENER)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(listener as RawFd) })
}

/// Whether the kernel offers an action, for example user notification.
pub(super) fn has_action(action: u32) -> bool {
    const GET_ACTION_AVAIL: libc::c_uint = 2;
    // SAFETY: the number lives through the call.
    unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, 0, &raw const action) == 0 }
}

/// A descriptor for a process (or, from Linux 6.9, a thread that leads none).
pub(super) fn pidfd(thread: pid_t, whole_process: bool) -> io::Result<OwnedFd> {
    let flags = if whole_process { 0 } else { libc::PIDFD_THREAD };
    // SAFETY: takes two numbers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_open, thread, flags) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Our own descriptor of what a process has under this number.
pub(super) fn take(process: &OwnedFd, number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: the descriptor is open, the rest are numbers.
    let fd = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) })?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Copies bytes from the memory of a process; all or an error.
pub(super) fn read_memory(thread: pid_t, from: u64, to: &mut [u8]) -> io::Result<()> {
    let local = libc::iovec { iov_base: to.as_mut_ptr().cast(), iov_len: to.len() };
    let remote = libc::iovec { iov_base: from as *mut libc::c_void, iov_len: to.len() };
    // SAFETY: `local` describes `to`, which is ours alone; the remote address is only looked up in the other process.
    let got = unsafe { libc::process_vm_readv(thread, &raw const local, 1, &raw const remote, 1, 0) };
    let got = check(got as c_long)?;
    if got as usize == to.len() { Ok(()) } else { Err(io::Error::from_raw_os_error(libc::EFAULT)) }
}

/// An option of a socket that is a number.
pub(super) fn option(socket: &OwnedFd, level: c_int, name: c_int) -> io::Result<c_int> {
    let (mut value, mut size) = (0, size_of::<c_int>() as libc::socklen_t);
    // SAFETY: value and size live through the call and belong together.
    let done = unsafe { libc::getsockopt(socket.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut size) };
    check(done.into()).map(|_| value)
}

/// A number that no other socket has had since the system started.
pub(super) fn cookie(socket: &OwnedFd) -> io::Result<u64> {
    let (mut value, mut size) = (0u64, size_of::<u64>() as libc::socklen_t);
    // SAFETY: value and size live through the call and belong together.
    let done = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_COOKIE, (&raw mut value).cast(), &raw mut size) };
    check(done.into()).map(|_| value)
}

/// How long sending, and so connecting, may take; `None` is forever.
pub(super) fn send_timeout(socket: &OwnedFd) -> io::Result<Option<Duration>> {
    let (mut value, mut size) = (libc::timeval { tv_sec: 0, tv_usec: 0 }, size_of::<libc::timeval>() as libc::socklen_t);
    // SAFETY: value and size live through the call and belong together.
    let done = unsafe { libc::getsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_SNDTIMEO, (&raw mut value).cast(), &raw mut size) };
    check(done.into())?;
    let length = Duration::from_secs(value.tv_sec as u64) + Duration::from_micros(value.tv_usec as u64);
    Ok((!length.is_zero()).then_some(length))
}

/// Sets how long receiving on a socket of our own may take.
pub(super) fn set_receive_timeout(socket: &OwnedFd, length: Duration) -> io::Result<()> {
    let value = libc::timeval { tv_sec: length.as_secs() as libc::time_t, tv_usec: length.subsec_micros().into() };
    let size = size_of::<libc::timeval>() as libc::socklen_t;
    // SAFETY: the value lives through the call and has that size.
    check(unsafe { libc::setsockopt(socket.as_raw_fd(), libc::SOL_SOCKET, libc::SO_RCVTIMEO, (&raw const value).cast(), size) }.into())
        .map(drop)
}

/// The status flags of a descriptor.
pub(super) fn flags(fd: &OwnedFd) -> io::Result<c_int> {
    // SAFETY: takes numbers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) }.into()).map(|flags| flags as c_int)
}

/// Sets the status flags of a descriptor.
pub(super) fn set_flags(fd: &OwnedFd, flags: c_int) -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, flags) }.into()).map(drop)
}

/// Connects, or begins to, with the bytes of an address.
pub(super) fn connect(socket: &OwnedFd, address: &[u8]) -> io::Result<()> {
    // SAFETY: the address lives through the call and has that length.
    check(unsafe { libc::connect(socket.as_raw_fd(), address.as_ptr().cast(), address.len() as libc::socklen_t) }.into()).map(drop)
}

/// Two connected sockets for packets, closed on exec.
pub(super) fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    // SAFETY: there is room for the two descriptors.
    check(unsafe { libc::socketpair(libc::AF_UNIX, libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC, 0, fds.as_mut_ptr()) }.into())?;
    // SAFETY: the kernel has just made these descriptors for us.
    Ok(unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) })
}

/// Sends a packet; never raises a signal, and does not wait where `wait` is false.
pub(super) fn send(socket: BorrowedFd<'_>, packet: &[u8], wait: bool) -> io::Result<()> {
    let flags = libc::MSG_NOSIGNAL | if wait { 0 } else { libc::MSG_DONTWAIT };
    // SAFETY: the packet lives through the call and has that length.
    check(unsafe { libc::send(socket.as_raw_fd(), packet.as_ptr().cast(), packet.len(), flags) } as c_long).map(drop)
}

/// Receives a packet, cut to the buffer; its length. Descriptors sent along are closed by the kernel, because there is no room for them.
pub(super) fn recv(socket: BorrowedFd<'_>, buffer: &mut [u8], wait: bool) -> io::Result<usize> {
    let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
    // SAFETY: the buffer is ours alone and has that length.
    let got = unsafe { libc::recv(socket.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len(), flags) };
    check(got as c_long).map(|got| got as usize)
}

/// Room for the control message that carries one descriptor, aligned as it must be.
#[repr(C, align(8))]
struct Control([u8; 64]);

fn message(iov: &mut libc::iovec, control: &mut Control) -> libc::msghdr {
    // SAFETY: all zeros is a valid value of this plain structure.
    let mut message: libc::msghdr = unsafe { zeroed() };
    message.msg_iov = iov;
    message.msg_iovlen = 1;
    message.msg_control = control.0.as_mut_ptr().cast();
    // SAFETY: a function of a number.
    message.msg_controllen = unsafe { libc::CMSG_SPACE(size_of::<c_int>() as u32) } as _;
    message
}

/// Sends one descriptor, with one byte.
pub(super) fn send_descriptor(socket: &OwnedFd, descriptor: &OwnedFd) -> io::Result<()> {
    let (mut byte, mut control) = (b'L', Control([0; 64]));
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let message = message(&mut iov, &mut control);
    // SAFETY: the message has room for a header and one descriptor, as computed by CMSG_SPACE; all it points to lives through the call.
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        (*header).cmsg_level = libc::SOL_SOCKET;
        (*header).cmsg_type = libc::SCM_RIGHTS;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<c_int>() as u32) as _;
        libc::CMSG_DATA(header).cast::<c_int>().write_unaligned(descriptor.as_raw_fd());
        check(libc::sendmsg(socket.as_raw_fd(), &raw const message, libc::MSG_NOSIGNAL) as c_long)?;
    }
    Ok(())
}

/// Receives what [`send_descriptor`] sent; an error if the peer is gone.
pub(super) fn receive_descriptor(socket: &OwnedFd) -> io::Result<OwnedFd> {
    let (mut byte, mut control) = (0u8, Control([0; 64]));
    let mut iov = libc::iovec { iov_base: (&raw mut byte).cast(), iov_len: 1 };
    let mut message = message(&mut iov, &mut control);
    // SAFETY: all that the message points to lives through the call; the header is read only where the kernel says one is.
    unsafe {
        check(libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC) as c_long)?;
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        if header.is_null() || (*header).cmsg_level != libc::SOL_SOCKET || (*header).cmsg_type != libc::SCM_RIGHTS {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(OwnedFd::from_raw_fd(libc::CMSG_DATA(header).cast::<c_int>().read_unaligned()))
    }
}

/// Waits until one of the descriptors is ready or the time is over.
pub(super) fn poll(fds: &mut [libc::pollfd], milliseconds: c_int) -> io::Result<()> {
    // SAFETY: the list is ours alone and has that length.
    check(unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, milliseconds) }.into()).map(drop)
}

/// Whether the calling process has only one thread: `unshare(CLONE_THREAD)` changes nothing and fails otherwise (`unshare(2)`).
pub(super) fn is_single_threaded() -> bool {
    // SAFETY: takes a number; with this flag it only checks.
    unsafe { libc::unshare(libc::CLONE_THREAD) == 0 }
}

/// Gives up the right to gain any by executing a file.
pub(super) fn no_new_privileges() -> io::Result<()> {
    // SAFETY: takes numbers.
    check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into()).map(drop)
}

/// Lets a process that is not an ancestor take our descriptors where Yama restricts that; without Yama there is nothing to do.
pub(super) fn allow_tracer(process: pid_t) {
    // SAFETY: takes numbers. The refusal of a kernel without Yama is no harm.
    unsafe { libc::prctl(libc::PR_SET_PTRACER, process as libc::c_ulong, 0, 0, 0) };
}

/// The fork of a single-threaded process: `None` in the child.
///
/// # Errors
/// The kernel's; `EBUSY` if the process has more than one thread.
pub(super) fn fork() -> io::Result<Option<pid_t>> {
    if !is_single_threaded() {
        return Err(io::Error::from_raw_os_error(libc::EBUSY));
    }
    // SAFETY: no other thread exists, so the child has every lock free and may go on as usual.
    let child = check(unsafe { libc::fork() }.into())?;
    Ok((child != 0).then_some(child as pid_t))
}

/// Ends the calling process at once, without destructors and handlers, which belong to the process it was forked from.
pub(super) fn end(code: c_int) -> ! {
    // SAFETY: ends the process.
    unsafe { libc::_exit(code) }
}

/// Collects a child that has ended or is about to.
pub(super) fn collect(child: pid_t) {
    // SAFETY: a null status is allowed.
    while unsafe { libc::waitpid(child, null_mut(), 0) } < 0 && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted {}
}

/// Whether `pidfd_getfd` is there: without a descriptor it says so in its own way.
pub(super) fn can_take() -> bool {
    // SAFETY: takes numbers; -1 is no descriptor.
    let refused = check(unsafe { libc::syscall(libc::SYS_pidfd_getfd, -1, 0, 0) });
    refused.is_err_and(|error| errno_of(&error) == libc::EBADF)
}

/// Whether the process runs as root.
pub(super) fn is_root() -> bool {
    // SAFETY: takes nothing.
    unsafe { libc::geteuid() == 0 }
}
