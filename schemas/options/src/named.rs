//! Enums whose variants have a name in files, options, messages or queries.

/// Defines an enum with the name of each variant, the list of all variants, and the function that returns the name.
#[macro_export]
macro_rules! named_enum {
    (
        $(#[$attribute:meta])*
        pub enum $Enum:ident {
            $($(#[$of_variant:meta])* $Variant:ident = $name:literal,)*
        }
    ) => {
        $(#[$attribute])*
        pub enum $Enum {
            $($(#[$of_variant])* $Variant,)*
        }

        impl $Enum {
            /// All variants, in the order of their definition.
            pub const ALL: [Self; [$($name),*].len()] = [$(Self::$Variant),*];

            /// Returns the name of the variant, as it is written in files.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$Variant => $name,)*
                }
            }
        }
    };
}
