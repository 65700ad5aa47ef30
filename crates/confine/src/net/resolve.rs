//! Names inside the confined process: the client of the broker, and functions that can stand in for the C library's.
//!
//! A confined process cannot ask a name server. Lua code asks through [`Client::lookup`]; C modules such as LuaSocket call `getaddrinfo` and
//! `gethostbyname`, so a program that exports [`getaddrinfo`], [`freeaddrinfo`] and [`gethostbyname`] under these very names (the dynamic linker looks
//! in the program first) serves them, too. Without [`Client::install`] these do what the C library does.
//!
//! The functions keep the C library's conventions and are written for glibc, whose lists can be taken apart node by node.

use super::raw;
use super::wire::{self, Answer, Status};
use libc::{addrinfo, c_char, c_int, c_void, hostent};
use std::cell::RefCell;
use std::ffi::{CStr, CString};
use std::fmt;
use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::{AsFd as _, AsRawFd, OwnedFd, RawFd};
use std::ptr::{null, null_mut};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

/// How long an answer may take; the broker gives up a lookup a little earlier.
pub(super) const PATIENCE: Duration = Duration::from_secs(12);
/// `HOST_NOT_FOUND`, `TRY_AGAIN` and `NO_RECOVERY` of `netdb.h`.
const HOST_NOT_FOUND: c_int = 1;
const TRY_AGAIN: c_int = 2;
const NO_RECOVERY: c_int = 3;
/// `EAI_ADDRFAMILY` of `netdb.h`.
const EAI_ADDRFAMILY: c_int = -9;

/// Why a name has no address here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LookupError {
    /// It was not granted to this machine.
    NotGranted,
    /// It has none, or the name servers did not answer.
    NotFound,
    /// Too many lookups at once, or no answer in time.
    TryAgain,
    /// There is no broker any more.
    NoBroker,
}

impl fmt::Display for LookupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            LookupError::NotGranted => "the name is not among the hosts granted to this machine",
            LookupError::NotFound => "the name has no address, or the name servers did not answer",
            LookupError::TryAgain => "no answer in time: try again",
            LookupError::NoBroker => "the broker of this machine's connections has ended",
        })
    }
}

impl std::error::Error for LookupError {}

/// An address of a name, with the interface of an IPv6 address that needs one, or 0.
pub type Found = (IpAddr, u32);

/// Asks the broker for names. One question at a time; may be shared between threads.
#[derive(Debug)]
pub struct Client {
    state: Mutex<State>,
}

/// What the client waits on, to be kept open where other descriptors are closed. Packets of anybody else's making on it are answered or ignored.
impl AsRawFd for Client {
    fn as_raw_fd(&self) -> RawFd {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).socket.as_raw_fd()
    }
}

#[derive(Debug)]
struct State {
    socket: OwnedFd,
    number: u32,
}

impl Client {
    pub(super) fn new(socket: OwnedFd) -> Self {
        Self { state: Mutex::new(State { socket, number: 0 }) }
    }

    /// The addresses of a granted name. Waits up to twelve seconds.
    ///
    /// # Errors
    /// That there are none, and why.
    pub fn lookup(&self, name: &str) -> Result<Vec<Found>, LookupError> {
        if name.len() > wire::LONGEST_NAME {
            return Err(LookupError::NotGranted);
        }
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.number = state.number.wrapping_add(1);
        let State { socket, number } = &*state;
        let mut packet = [0; wire::LARGEST];
        // Answers that came too late leave no room for this one.
        while raw::recv(socket.as_fd(), &mut packet, false).is_ok_and(|size| size > 0) {}
        raw::send(socket.as_fd(), &wire::question(*number, name), true).map_err(|_| LookupError::NoBroker)?;
        loop {
            match raw::recv(socket.as_fd(), &mut packet, true) {
                Ok(0) => return Err(LookupError::NoBroker),
                Ok(size) => match Answer::read(&packet[..size]) {
                    Some(answer) if answer.number == *number => return read(answer),
                    // The answer to a question that was given up.
                    _ => {}
                },
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(LookupError::TryAgain),
                Err(_) => return Err(LookupError::NoBroker),
            }
        }
    }

    /// Makes this client serve [`getaddrinfo`] and its like in this process, for good.
    ///
    /// # Errors
    /// The client back, if another one does already.
    pub fn install(self) -> Result<&'static Self, Self> {
        INSTALLED.set(self)?;
        Ok(INSTALLED.get().expect("set just now"))
    }
}

static INSTALLED: OnceLock<Client> = OnceLock::new();

fn read(answer: Answer) -> Result<Vec<Found>, LookupError> {
    match answer.status {
        Status::Found => Ok(answer.addresses.into_iter().map(|address| (address.ip, address.scope)).collect()),
        Status::NotGranted => Err(LookupError::NotGranted),
        Status::Nothing => Err(LookupError::NotFound),
        Status::Busy => Err(LookupError::TryAgain),
    }
}

type GetAddrInfo = unsafe extern "C" fn(*const c_char, *const c_char, *const addrinfo, *mut *mut addrinfo) -> c_int;
type FreeAddrInfo = unsafe extern "C" fn(*mut addrinfo);
type GetHostByName = unsafe extern "C" fn(*const c_char) -> *mut hostent;

/// The C library's own functions, which ours hide when they are exported.
struct Library {
    getaddrinfo: GetAddrInfo,
    freeaddrinfo: FreeAddrInfo,
    gethostbyname: GetHostByName,
}

fn library() -> Option<&'static Library> {
    static LIBRARY: OnceLock<Option<Library>> = OnceLock::new();
    fn find(name: &CStr) -> Option<*mut c_void> {
        // SAFETY: the name is a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_NEXT, name.as_ptr()) };
        (!found.is_null()).then_some(found)
    }
    let find_all = || {
        let (get, free, by_name) = (find(c"getaddrinfo")?, find(c"freeaddrinfo")?, find(c"gethostbyname")?);
        // SAFETY: these are the functions of those names, and their types are those of POSIX.
        Some(unsafe {
            Library {
                getaddrinfo: std::mem::transmute::<*mut c_void, GetAddrInfo>(get),
                freeaddrinfo: std::mem::transmute::<*mut c_void, FreeAddrInfo>(free),
                gethostbyname: std::mem::transmute::<*mut c_void, GetHostByName>(by_name),
            }
        })
    };
    LIBRARY.get_or_init(find_all).as_ref()
}

/// `getaddrinfo(3)`: the C library's for addresses and services, the broker's for names.
///
/// Gives `EAI_FAIL` for a name that is not granted, `EAI_NONAME` for one without an address, `EAI_AGAIN` where no answer came.
///
/// # Safety
/// As of the C library's: strings or null, valid hints or null, room for a pointer.
pub unsafe extern "C" fn getaddrinfo(
    node: *const c_char,
    service: *const c_char,
    hints: *const addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    let Some(library) = library() else { return libc::EAI_FAIL };
    let client = INSTALLED.get().filter(|_| !node.is_null());
    let Some(client) = client else {
        // SAFETY: passed on as it came.
        return unsafe { (library.getaddrinfo)(node, service, hints, result) };
    };
    // SAFETY: all zeros is a valid value: any family, any type.
    let mut wanted: addrinfo = unsafe { std::mem::zeroed() };
    if !hints.is_null() {
        // SAFETY: the caller's hints are valid; only these four fields of them count.
        let hints = unsafe { &*hints };
        wanted.ai_flags = hints.ai_flags;
        wanted.ai_family = hints.ai_family;
        wanted.ai_socktype = hints.ai_socktype;
        wanted.ai_protocol = hints.ai_protocol;
    }
    let only_numbers = wanted.ai_flags & libc::AI_NUMERICHOST != 0;
    // Which addresses the computer has is the broker's matter.
    wanted.ai_flags = (wanted.ai_flags | libc::AI_NUMERICHOST) & !libc::AI_ADDRCONFIG;
    // SAFETY: as above, with hints of our own.
    let numeric = unsafe { (library.getaddrinfo)(node, service, &raw const wanted, result) };
    if numeric != libc::EAI_NONAME || only_numbers {
        return numeric;
    }
    // SAFETY: not null, so a string.
    let name = unsafe { CStr::from_ptr(node) };
    let found = match name.to_str().map_err(|_| LookupError::NotGranted).and_then(|text| client.lookup(text)) {
        Ok(found) => found,
        Err(LookupError::NotGranted) => return libc::EAI_FAIL,
        Err(LookupError::NotFound) => return libc::EAI_NONAME,
        Err(LookupError::TryAgain | LookupError::NoBroker) => return libc::EAI_AGAIN,
    };
    // SAFETY: `result` has room for a pointer; the service is a string or null.
    unsafe { join(library, name, &found, service, &wanted, result) }
}

/// The list for several addresses, made of the C library's lists for each.
///
/// # Safety
/// `service` is a string or null, `result` has room for a pointer.
unsafe fn join(
    library: &Library,
    name: &CStr,
    found: &[Found],
    service: *const c_char,
    wanted: &addrinfo,
    result: *mut *mut addrinfo,
) -> c_int {
    let (mut first, mut last): (*mut addrinfo, *mut addrinfo) = (null_mut(), null_mut());
    let mut refusal = libc::EAI_NONAME;
    for (ip, scope) in found {
        let text = if *scope == 0 { ip.to_string() } else { format!("{ip}%{scope}") };
        let Ok(text) = CString::new(text) else { continue };
        let mut list = null_mut();
        // SAFETY: the strings and hints live through the call; there is room for the list.
        let answer = unsafe { (library.getaddrinfo)(text.as_ptr(), service, wanted, &raw mut list) };
        if answer != 0 {
            // Of another family than wanted, for example: then the other addresses count.
            refusal = if answer == EAI_ADDRFAMILY || answer == libc::EAI_FAMILY { refusal } else { answer };
            continue;
        }
        if first.is_null() {
            first = list;
        } else {
            // SAFETY: the last node of our own list.
            unsafe { (*last).ai_next = list };
        }
        last = list;
        // SAFETY: the lists of the C library end with null.
        unsafe {
            while !(*last).ai_next.is_null() {
                last = (*last).ai_next;
            }
        }
    }
    if first.is_null() {
        return refusal;
    }
    if wanted.ai_flags & libc::AI_CANONNAME != 0 {
        // SAFETY: glibc allocates this field by itself and frees it with the list; only the first node has it.
        unsafe {
            let mut node = first;
            while !node.is_null() {
                libc::free((*node).ai_canonname.cast());
                (*node).ai_canonname = null_mut();
                node = (*node).ai_next;
            }
            (*first).ai_canonname = libc::strdup(name.as_ptr());
        }
    }
    // SAFETY: the caller's room.
    unsafe { *result = first };
    0
}

/// `freeaddrinfo(3)` for the lists of [`getaddrinfo`].
///
/// # Safety
/// A list of that function, or null, that nobody uses any more.
pub unsafe extern "C" fn freeaddrinfo(list: *mut addrinfo) {
    if let Some(library) = library() {
        // SAFETY: our lists are glibc's own nodes, each allocated by itself.
        unsafe { (library.freeaddrinfo)(list) };
    }
}

/// What `gethostbyname` returns until the next call of the thread.
struct Answered {
    host: hostent,
    name: CString,
    addresses: Vec<[u8; 4]>,
    pointers: Vec<*mut c_char>,
    aliases: [*mut c_char; 1],
}

/// `gethostbyname(3)`: IPv4 addresses only; valid until the thread's next call.
///
/// # Safety
/// A string.
pub unsafe extern "C" fn gethostbyname(name: *const c_char) -> *mut hostent {
    thread_local! {
        static ANSWERED: RefCell<Option<Box<Answered>>> = const { RefCell::new(None) };
    }
    let Some(library) = library() else { return null_mut() };
    let Some(client) = INSTALLED.get().filter(|_| !name.is_null()) else {
        // SAFETY: passed on as it came.
        return unsafe { (library.gethostbyname)(name) };
    };
    // SAFETY: the caller's string.
    let name = unsafe { CStr::from_ptr(name) };
    let text = name.to_str().unwrap_or_default();
    let found = match text.parse::<Ipv4Addr>() {
        Ok(ip) => Ok(vec![(IpAddr::V4(ip), 0)]),
        Err(_) => client.lookup(text),
    };
    let addresses: Result<Vec<[u8; 4]>, LookupError> = found.map(|found| {
        let of_four = found.iter().filter_map(|(ip, _)| if let IpAddr::V4(ip) = ip { Some(ip.octets()) } else { None });
        of_four.collect()
    });
    let addresses = match addresses {
        Ok(addresses) if !addresses.is_empty() => addresses,
        Ok(_) | Err(LookupError::NotFound) => return refuse(HOST_NOT_FOUND),
        Err(LookupError::NotGranted) => return refuse(NO_RECOVERY),
        Err(LookupError::TryAgain | LookupError::NoBroker) => return refuse(TRY_AGAIN),
    };
    let host = hostent { h_name: null_mut(), h_aliases: null_mut(), h_addrtype: libc::AF_INET, h_length: 4, h_addr_list: null_mut() };
    let mut answered =
        Box::new(Answered { host, name: name.to_owned(), addresses, pointers: Vec::new(), aliases: [null::<c_char>().cast_mut()] });
    answered.pointers = answered.addresses.iter_mut().map(|address| address.as_mut_ptr().cast()).chain([null_mut()]).collect();
    answered.host.h_name = answered.name.as_ptr().cast_mut();
    answered.host.h_aliases = answered.aliases.as_mut_ptr();
    answered.host.h_addr_list = answered.pointers.as_mut_ptr();
    ANSWERED.with_borrow_mut(|slot| &raw mut slot.insert(answered).host)
}

fn refuse(code: c_int) -> *mut hostent {
    unsafe extern "C" {
        fn __h_errno_location() -> *mut c_int;
    }
    // SAFETY: glibc returns the place of this thread's `h_errno`.
    unsafe { *__h_errno_location() = code };
    null_mut()
}
