//! The experiments compiled into the binary, one per document.

/// Name and TOML text of each shipped experiment, in the order of their documents.
pub const SHIPPED: [(&str, &str); 5] = [
    (
        "fma-large",
        include_str!("../../experiments/fma-large.toml"),
    ),
    (
        "gtzan-segments",
        include_str!("../../experiments/gtzan-segments.toml"),
    ),
    (
        "fma-small",
        include_str!("../../experiments/fma-small.toml"),
    ),
    (
        "fma-windows",
        include_str!("../../experiments/fma-windows.toml"),
    ),
    (
        "gtzan-images",
        include_str!("../../experiments/gtzan-images.toml"),
    ),
];
