//! Types that are copied to a device as bytes: kernel parameters and tables.
#![allow(unsafe_code)] // a marker trait, and the byte view that it permits

/// Plain numbers, or `#[repr(C)]` structs of them without padding, with the same fields in the same order as the C++
/// struct of the same name.
///
/// # Safety
/// The type has no padding, and every bit pattern is valid. [`plain!`] ensures both.
pub unsafe trait Plain: Copy + Send + 'static {}

// SAFETY: a number type.
unsafe impl Plain for f32 {}
// SAFETY: a number type.
unsafe impl Plain for f64 {}
// SAFETY: a number type.
unsafe impl Plain for i16 {}
// SAFETY: a number type.
unsafe impl Plain for i64 {}
// SAFETY: a number type.
unsafe impl Plain for u32 {}
// SAFETY: a number type.
unsafe impl Plain for u8 {}

/// Declares a struct of plain numbers: first addresses and other 8-byte fields, then 4-byte fields, padded to a
/// multiple of 8 bytes by explicit fields.
macro_rules! plain {
    ($(#[$meta:meta])* struct $name:ident { $($(#[$field_meta:meta])* $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug)]
        pub(crate) struct $name { $($(#[$field_meta])* pub(crate) $field: $kind,)* }

        const _: () = assert!(
            size_of::<$name>() == 0 $(+ size_of::<$kind>())*,
            "padding: order the fields by size, and fill up to 8 bytes"
        );

        // SAFETY: repr(C), only numbers, and no padding by the assertion above.
        #[allow(unsafe_code)]
        unsafe impl $crate::device::Plain for $name {}
    };
}
pub(crate) use plain;

/// Returns the bytes of `values` in native byte order.
pub(crate) fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` has no padding, so every byte is initialised; the view has the lifetime of the slice.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
