//! Labels of DNS names (RFC 1123), which Kubernetes uses for names.

/// The longest label.
pub(crate) const LONGEST: usize = 63;

/// Returns `true` for a label as RFC 1123 defines it.
pub(crate) fn is_dns_label(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=LONGEST).contains(&text.len())
        && text.chars().all(allowed)
        && !text.starts_with('-')
        && !text.ends_with('-')
}
