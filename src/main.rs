//! The program: parse, run, exit code. All else is in the library.

use std::process::ExitCode;

// The unwinder out of gcc's archive: no shared library but the C library's own is needed then.
#[cfg(target_env = "gnu")]
#[expect(unsafe_code, reason = "it declares nothing that can be called")]
#[link(name = "gcc_eh")]
unsafe extern "C" {}

// The standard library opens /dev/null in the place of a closed stdout before `main`.
#[expect(unsafe_code, reason = "what is called needs nothing of the library's")]
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = k3s_vm::cli::note_closed_stdout;

fn main() -> ExitCode {
    k3s_vm::cli::main()
}
