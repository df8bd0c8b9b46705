//! Encoding and separators of the names of zip entries.

/// Characters of the bytes 128 to 255 in code page 437, the encoding of names without the UTF-8 flag (APPNOTE.TXT,
/// appendix D).
const CP437: &str = "ÇüéâäàåçêëèïîìÄÅÉæÆôöòûùÿÖÜ¢£¥₧ƒáíóúñÑªº¿⌐¬½¼¡«»░▒▓│┤╡╢╖╕╣║╗╝╜╛┐\
                     └┴┬├─┼╞╟╚╔╩╦╠═╬╧╨╤╥╙╘╒╓╫╪┘┌█▄▌▐▀αßΓπΣσµτΦΘΩδ∞φε∩≡±≥≤⌠⌡÷≈°∙·√ⁿ²■\u{a0}";

/// Systems on which `\` separates folders, by the number in the field `version made by`: FAT, OS/2, NTFS with PKWARE's
/// and with Info-ZIP's number, and VFAT.
const SYSTEMS_WITH_BACKSLASH: [u8; 5] = [0, 6, 10, 11, 14];

/// Decodes the name of an entry that was made on `system`, and replaces the separator of Windows. Invalid UTF-8 remains
/// as it is if the name is marked as UTF-8.
pub(super) fn decode(name: &[u8], system: u8, is_marked: bool) -> Box<[u8]> {
    // Most programs on Linux and macOS write UTF-8 without the mark.
    let is_utf8 = is_marked || std::str::from_utf8(name).is_ok();
    let mut decoded: Box<[u8]> = if is_utf8 {
        name.into()
    } else {
        from_cp437(name).into_bytes().into()
    };

    // In a code page of East Asia, `\` can be the second byte of a character. A name with `/` has no other separator then.
    let is_separator = is_utf8 || !name.contains(&b'/');
    if is_separator && SYSTEMS_WITH_BACKSLASH.contains(&system) {
        replace_backslashes(&mut decoded);
    }
    decoded
}

/// Replaces each `\` in a name by `/`.
pub(super) fn replace_backslashes(name: &mut [u8]) {
    for byte in name.iter_mut().filter(|byte| **byte == b'\\') {
        *byte = b'/';
    }
}

fn from_cp437(name: &[u8]) -> String {
    let decoded = name.iter().map(|&byte| {
        let high = byte.checked_sub(128);
        let character = high.and_then(|n| CP437.chars().nth(n.into()));
        character.unwrap_or(byte.into())
    });
    decoded.collect()
}
