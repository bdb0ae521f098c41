//! Files: their error, durable writes, limited reads, and the space on the disk.

pub mod error;
mod read;
mod space;
mod write;

pub(crate) use error::refused;
pub use error::{FileError, TRUST};
pub use read::{
    expand_home, open_in_place, open_plain, open_regular, read, read_at_most, read_if_exists,
    read_own, tail,
};
pub use space::{Space, allocated, free_space, require_space};
pub use write::{
    PRIVATE, PROGRAM, copy_owner, create_private_dir, make_fifo, remove_if_exists,
    replace_contents, sync_directory, write, write_among_others, write_new,
};
