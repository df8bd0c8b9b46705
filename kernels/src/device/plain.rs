//! What crosses to a device byte by byte: kernels' parameters, and tables.
#![allow(unsafe_code)] // a marker trait, and the view that it allows

/// Plain numbers without padding, `#[repr(C)]`: the same fields in the same order as the C++ struct of that name.
///
/// # Safety
/// No padding, and every bit pattern is valid. [`plain!`] sees to both.
pub unsafe trait Plain: Copy + Send + 'static {}

// SAFETY: numbers.
unsafe impl Plain for f32 {}
// SAFETY: numbers.
unsafe impl Plain for f64 {}
// SAFETY: numbers.
unsafe impl Plain for i16 {}
// SAFETY: numbers.
unsafe impl Plain for i64 {}
// SAFETY: numbers.
unsafe impl Plain for u32 {}
// SAFETY: numbers.
unsafe impl Plain for u8 {}

/// Declares a struct of plain numbers: addresses and other 8-byte fields first, then 4-byte ones, filled up to 8 bytes.
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

        // SAFETY: repr(C) without padding by the assertion above, of numbers alone.
        #[allow(unsafe_code)]
        unsafe impl $crate::device::Plain for $name {}
    };
}
pub(crate) use plain;

/// The bytes of `values`, in this machine's order.
pub(crate) fn bytes_of<T: Plain>(values: &[T]) -> &[u8] {
    // SAFETY: `Plain` has no padding, so every byte is initialised; the view lives as long as the slice.
    unsafe { std::slice::from_raw_parts(values.as_ptr().cast(), size_of_val(values)) }
}
