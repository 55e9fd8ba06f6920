//! libvirt, loaded when the program runs: one serves hosts with and without it, and building needs none.
//!
//! Every `vir*` function that virt-sys declares is defined here as a jump through a table. [`load`] fills the table from
//! the host's `libvirt.so.0`. Until it has, the entries are null and a call would end the process: so programs make their
//! connections, through which all calls go, after [`load`] only.
//!
//! Linking with libvirt would be simpler, and the program would then not start where libvirt is missing.
#![allow(unsafe_code, reason = "functions of a C library, found by name, can't be had otherwise")]

use std::ffi::CStr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW};

const LIBRARY: &str = "libvirt.so.0";

/// What stands in for a function that this libvirt doesn't have: libvirt's own way of saying that a call failed.
#[derive(Clone, Copy, Debug)]
enum Missing {
    Null,
    Negative,
}

/// libvirt can't be had on this host, or not as it is expected.
#[derive(Debug, thiserror::Error)]
#[error("load {LIBRARY}")]
pub struct NotLoaded(#[source] libloading::Error);

/// Proof that the table is filled.
#[derive(Clone, Copy, Debug)]
pub struct Loaded(());

#[cfg(target_arch = "x86_64")]
macro_rules! jump {
    () => {
        "jmp *{table}+\\offset(%rip)"
    };
}
#[cfg(target_arch = "x86_64")]
macro_rules! assemble {
    ($($line:expr),*) => {
        core::arch::global_asm!(trampoline!(), $($line),*, table = sym TABLE, options(att_syntax));
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! jump {
    () => {
        "adrp x16, {table}+\\offset\n ldr x16, [x16, :lo12:{table}+\\offset]\n br x16"
    };
}
#[cfg(target_arch = "aarch64")]
macro_rules! assemble {
    ($($line:expr),*) => {
        core::arch::global_asm!(trampoline!(), $($line),*, table = sym TABLE);
    };
}

/// Defines one function. Each has a section of its own, so that those that nothing calls are left out.
macro_rules! trampoline {
    () => {
        concat!(
            ".macro HORCRUX_VIR name, offset
 .pushsection .text.\\name,\"ax\",@progbits
 .p2align 4
 .globl \\name
 .type \\name,@function
\\name:
 ",
            jump!(),
            "
 .size \\name,.-\\name
 .popsection
.endm"
        )
    };
}

macro_rules! functions {
    ($($offset:literal $missing:ident $name:ident,)*) => {
        static FUNCTIONS: &[(&CStr, Missing)] = &[$((
            match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                Ok(name) => name,
                Err(_) => c"",
            },
            Missing::$missing,
        )),*];
        const COUNT: usize = [$($offset),*].len();
        static TABLE: [AtomicUsize; COUNT] = [const { AtomicUsize::new(0) }; COUNT];
        assemble!($(concat!("HORCRUX_VIR ", stringify!($name), ", ", $offset)),*);
    };
}

include!("functions.rs");

extern "C" fn null() -> usize {
    0
}

extern "C" fn negative() -> isize {
    -1
}

/// Loads libvirt, unless it has been. May be tried again after a failure.
pub fn load() -> Result<Loaded, NotLoaded> {
    // The table is the process's own, and so is the library: once loaded it stays.
    static LIBVIRT: Mutex<Option<Library>> = Mutex::new(None);
    let mut kept = LIBVIRT.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if kept.is_some() {
        return Ok(Loaded(()));
    }
    // SAFETY: loading runs the library's initialisers; libvirt's have no condition.
    let library = unsafe { Library::open(Some(LIBRARY), RTLD_NOW | RTLD_LOCAL) }.map_err(NotLoaded)?;
    for (entry, (name, missing)) in TABLE.iter().zip(FUNCTIONS) {
        // SAFETY: the address is only stored, and called as the C function that virt-sys declares by this name.
        let found = unsafe { library.get::<*mut core::ffi::c_void>(name.to_bytes_with_nul()) };
        let address = match (found, missing) {
            (Ok(function), _) => function.as_raw_ptr().addr(),
            (Err(_), Missing::Null) => null as *const () as usize,
            (Err(_), Missing::Negative) => negative as *const () as usize,
        };
        entry.store(address, Ordering::Release);
    }
    *kept = Some(library);
    Ok(Loaded(()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_function_stands_where_its_jump_looks() {
        let text = include_str!("functions.rs");
        let lines: Vec<&str> = text.lines().filter(|line| line.ends_with(',')).collect();
        assert_eq!(lines.len(), FUNCTIONS.len());
        for (place, (line, (name, _))) in lines.iter().zip(FUNCTIONS).enumerate() {
            let offset = (place * size_of::<usize>()).to_string();
            assert_eq!(line.split_whitespace().next(), Some(offset.as_str()), "{name:?}");
        }
    }
}
