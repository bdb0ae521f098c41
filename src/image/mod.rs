//! Base images and releases: the catalogue, downloads, the cache, and overlay disks on cached images. All files of the
//! cache are shared between projects, and no guest writes to them.

mod base_image;
mod cache;
mod catalog;
mod checksum;
mod copy;
pub mod download;
mod error;
pub mod format;
mod http;
mod image_file;
mod job;
mod origin;
mod overlay;
mod partial;
mod retry;
mod source;
pub mod template;
#[cfg(test)]
mod test_server;

pub use cache::{Cache, Download, ItemLock, key};
pub use catalog::{Catalog, Entry, ImageSource};
pub use checksum::Checksum;
pub use error::ImageError;
pub use format::Format;
pub use http::{fetch_text, http_client};
pub use image_file::BaseImage;
pub use origin::Origin;
pub use overlay::{disk_use, header_fault, is_fresh, is_qcow2, plan};
pub use retry::RetryPolicy;
pub use source::Known;
pub use template::TemplateState;
