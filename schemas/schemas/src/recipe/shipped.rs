//! The recipes compiled into the binary.

/// Name and TOML text of each shipped recipe, sorted by name.
pub const SHIPPED: [(&str, &str); 9] = [
    ("demo", include_str!("../../recipes/demo.toml")),
    (
        "fma-features",
        include_str!("../../recipes/fma-features.toml"),
    ),
    ("fma-large", include_str!("../../recipes/fma-large.toml")),
    ("fma-small", include_str!("../../recipes/fma-small.toml")),
    (
        "fma-windows",
        include_str!("../../recipes/fma-windows.toml"),
    ),
    ("folders", include_str!("../../recipes/folders.toml")),
    (
        "gtzan-images",
        include_str!("../../recipes/gtzan-images.toml"),
    ),
    (
        "gtzan-published-images",
        include_str!("../../recipes/gtzan-published-images.toml"),
    ),
    (
        "gtzan-segments",
        include_str!("../../recipes/gtzan-segments.toml"),
    ),
];
