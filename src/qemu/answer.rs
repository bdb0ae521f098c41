//! Runs a program for its output, with a deadline: a wrapper in QEMU's place may never end.

use std::{
    io::{self, Write},
    os::unix::process::CommandExt,
    path::Path,
    process::{Command, Output, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use nix::{
    sys::signal::{Signal, killpg},
    unistd::Pid,
};

/// The limit of an answer, many times what QEMU needs on a busy host.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// The output of a program with these arguments and this input.
///
/// # Errors
///
/// When it cannot be started, or does not end within 30 s; it is killed then.
pub(super) fn answer(program: &Path, arguments: &[&str], input: &str) -> io::Result<Output> {
    within(ANSWER_TIMEOUT, program, arguments, input)
}

fn within(
    timeout: Duration,
    program: &Path,
    arguments: &[&str],
    input: &str,
) -> io::Result<Output> {
    // A group of its own, so that what a wrapper has started is killed as well.
    let mut child = Command::new(program)
        .args(arguments)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    let group = Pid::from_raw(child.id().cast_signed());
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends without reading is not an error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || sender.send(child.wait_with_output()));
    receiver.recv_timeout(timeout).unwrap_or_else(|_| {
        let _ = killpg(group, Signal::SIGKILL);
        Err(io::Error::other(format!(
            "it did not end within {} s",
            timeout.as_secs()
        )))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_does_not_end_is_killed() {
        let shell = Path::new("/bin/sh");
        let told = answer(shell, &["-c", "read -r line; echo $line"], "x\n").expect("it ends");
        assert_eq!(told.stdout, b"x\n");
        let hang = ["-c", "sleep 600 & echo $!; wait"];
        let error = within(Duration::from_secs(1), shell, &hang, "").expect_err("it hangs");
        assert_eq!(error.to_string(), "it did not end within 1 s");
    }
}
