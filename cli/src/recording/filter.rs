//! What a VM said to a serial line, as far as it is for the screen.
//!
//! A terminal obeys more than that: it answers questions, and its answers would be keys to whoever plays a recording; it sets
//! its title, the clipboard, the colours of others, what the mouse says. So what is known to draw is written anew, and all
//! else left out. A sequence that isn't whole waits in the parser, which keeps at most a KiB of it.

use vte::{Params, Parser, Perform};

/// To write, to move about, to erase, to scroll, to colour.
const DRAWS: &str = "@ABCDEFGHIKLMPSTXZ`abdefmrsu";
/// To insert rather than to replace, and to begin a line anew with each LF.
const MODES: [u16; 2] = [4, 20];
/// Reverse video, what follows a full line, whether the cursor shows, and the alternate screen.
const OWN_MODES: [u16; 6] = [5, 7, 25, 47, 1047, 1049];
const ALTERNATE: [u16; 3] = [47, 1047, 1049];
/// Undoes what may pass, and leaves the cursor where it is.
const RESET: &str =
    "\x1b[!p\x1b7\x1b[r\x1b8\x1b[0m\x1b(B\x0f\x1b[4l\x1b[20l\x1b[?5l\x1b[?7h\x1b[?25h\x1b[0 q";

#[derive(Default)]
pub(super) struct Filter {
    parser: Parser,
    kept: Kept,
}

#[derive(Default)]
struct Kept {
    text: String,
    is_alternate: bool,
}

impl Filter {
    /// What of the next piece, and of what waited, is for the screen.
    pub(super) fn pass(&mut self, text: &str) -> String {
        self.parser.advance(&mut self.kept, text.as_bytes());
        std::mem::take(&mut self.kept.text)
    }

    /// What makes the terminal one to tell something on.
    pub(super) fn reset(&self) -> String {
        // Only where it is shown: otherwise it would move the cursor.
        let back = if self.kept.is_alternate { "\x1b[?1049l" } else { "" };
        format!("{back}{RESET}")
    }
}

impl Kept {
    fn modes(&mut self, params: &Params, own: bool, action: char) {
        let known: &[u16] = if own { &OWN_MODES } else { &MODES };
        for mode in params.iter().filter_map(|param| param.first()).filter(|mode| known.contains(mode)) {
            self.is_alternate =
                if own && ALTERNATE.contains(mode) { action == 'h' } else { self.is_alternate };
            self.text.push_str(&format!("\x1b[{}{mode}{action}", if own { "?" } else { "" }));
        }
    }

    fn sequence(&mut self, params: &Params, end: &str) {
        self.text.push_str("\x1b[");
        // One that is 0 is as none.
        if params.len() > 1 || params.iter().any(|param| param != [0]) {
            for (at, param) in params.iter().enumerate() {
                self.text.push_str(if at > 0 { ";" } else { "" });
                let parts: Vec<String> = param.iter().map(u16::to_string).collect();
                self.text.push_str(&parts.join(":"));
            }
        }
        self.text.push_str(end);
    }
}

impl Perform for Kept {
    fn print(&mut self, letter: char) {
        if !letter.is_control() {
            self.text.push(letter);
        }
    }

    /// From BEL to SI: to move, to ring, and to choose letters.
    fn execute(&mut self, byte: u8) {
        if (0x07..=0x0f).contains(&byte) {
            self.text.push(char::from(byte));
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], ignore: bool, action: char) {
        if ignore {
            return;
        }
        match (intermediates, action) {
            ([], _) if DRAWS.contains(action) => self.sequence(params, action.encode_utf8(&mut [0; 4])),
            // 3 would erase what this terminal has kept of before.
            ([], 'J') if params.iter().flatten().all(|what| *what <= 2) => self.sequence(params, "J"),
            ([], 'h' | 'l') => self.modes(params, false, action),
            (b"?", 'h' | 'l') => self.modes(params, true, action),
            (b" ", 'q') => self.sequence(params, " q"),
            (b"!", 'p') => self.text.push_str("\x1b[!p"),
            _ => {}
        }
    }

    fn esc_dispatch(&mut self, intermediates: &[u8], ignore: bool, byte: u8) {
        if ignore {
            return;
        }
        match (intermediates, byte) {
            ([], b'7' | b'8' | b'D' | b'E' | b'M') => self.text.extend(['\x1b', char::from(byte)]),
            // Begins anew; this terminal's own past stays.
            ([], b'c') => self.text.push_str("\x1b[!p\x1b[m\x1b[H\x1b[2J"),
            // Letters and lines; and lines of double size.
            ([which @ (b'(' | b')')], b'0' | b'A' | b'B') | ([which @ b'#'], b'3'..=b'6' | b'8') => {
                self.text.extend(['\x1b', char::from(*which), char::from(byte)]);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn passed(text: &str) -> String {
        Filter::default().pass(text)
    }

    #[test]
    fn what_draws_passes_as_it_is() {
        for text in [
            "caf\u{e9} \u{1f600}\u{4e2d}\u{6587}\r\n\ttab\x08\x07\x0e\x0f",
            "\x1b[m\x1b[1;31mred\x1b[38;5;208m\x1b[38;2;1;2;3m\x1b[4:3m\x1b[8mhidden",
            "\x1b[H\x1b[12;40H\x1b[2J\x1b[K\x1b[5A\x1b[B\x1b[10C\x1b[3D\x1b[7G\x1b[4d\x1b[s\x1b[u\x1b7\x1b8",
            "\x1b[2;20r\x1b[r\x1b[3L\x1b[2M\x1b[4P\x1b[2@\x1b[9X\x1b[S\x1b[2T\x1bM\x1bD\x1bE\x1b[4h\x1b[20l",
            "\x1b[?7l\x1b[?25l\x1b[?25h\x1b[?1049h\x1b[?1049l\x1b[2 q\x1b[!p\x1b(0qqq\x1b(B\x1b#8",
        ] {
            assert_eq!(passed(text), text);
        }
        assert_eq!(passed("\x1b[0m\x1b[?1049;2004h"), "\x1b[m\x1b[?1049h");
    }

    #[test]
    fn what_a_terminal_would_answer_or_keep_is_left_out_whole() {
        let long = format!("\x1b]52;c;{}\x07", "QUFB".repeat(100_000));
        for text in [
            "\x1bP$q\"q\x1b\\",
            "\x1bP+q544e\x1b\\",
            "\x1b]0;title\x07",
            "\x1b]52;c;cm0gLXJm\x1b\\",
            "\x1b]4;1;?\x07",
            &long,
            "\x1b_Gi=1,a=q;\x1b\\",
            "\x1b^private\x1b\\",
            "\x1bXstring\x1b\\",
            "\x1b[c\x1b[0c\x1b[>c\x1b[=c\x1bZ\x05",
            "\x1b[5n\x1b[6n\x1b[?6n\x1b[?15n",
            "\x1b[q\x1b[>0q\x1b[0\"q",
            "\x1b[14t\x1b[21t\x1b[3;0;0t\x1b[22;0t",
            "\x1b[?25$p\x1b[4$p\x1b[x\x1b[1;1;1;1;1;1*y\x1b[1$w\x1b[?1;1;0S\x1b[?u\x1b[>1u\x1b[i\x1b[5i",
            "\x1b[?1000h\x1b[?1003;1006h\x1b[?1004h\x1b[?2004h\x1b[?1h\x1b[2h\x1b[>4;2m\x1b[3J\x1b[3g\x1bH",
            "\x1b=\x1b>\x1b%@\x1b%G\x1bn\x1b}\x7f\u{9c}\u{85}",
        ] {
            assert_eq!(passed(&format!("a{text}b")), "ab", "{text:?}");
        }
        // One letter of these begins a sequence too.
        assert_eq!(passed("\u{9b}6n\u{90}$q\"q\u{9d}0;t"), "6n$q\"q0;t");
        assert_eq!(passed("a\x1bcb"), "a\x1b[!p\x1b[m\x1b[H\x1b[2Jb");
    }

    #[test]
    fn the_alternate_screen_is_left_where_it_is_shown() {
        let mut filter = Filter::default();
        assert!(!filter.reset().contains("1049"));
        filter.pass("\x1b[?1049h");
        assert!(filter.reset().starts_with("\x1b[?1049l\x1b[!p"));
        filter.pass("\x1b[?1049l");
        assert!(!filter.reset().contains("1049"));
    }

    /// Bits that make up sequences, rather more often than chance would.
    fn said() -> impl Strategy<Value = Vec<String>> {
        let bit = prop_oneof![
            2 => Just("\x1b".to_owned()),
            4 => Just("\x1b[".to_owned()),
            2 => "[\\]PX^_\\\\Zc()#%=0-9;:?>!\"$ *'+]",
            3 => "[0-9;:?]{1,4}",
            3 => "[@-~]",
            1 => "[\u{0}-\u{1f}\u{7f}-\u{9f}]",
            2 => "\\PC{0,6}",
        ];
        proptest::collection::vec(bit, 0..80)
    }

    /// What is no text in it, each sequence up to its end.
    fn sequences(text: &str) -> Vec<String> {
        let (mut all, mut rest) = (Vec::new(), text.chars());
        while let Some(letter) = rest.next() {
            if letter != '\x1b' {
                assert!(
                    !letter.is_control() || ('\x07'..='\x0f').contains(&letter),
                    "{letter:?} in {text:?}"
                );
                continue;
            }
            let mut sequence = String::new();
            sequence.extend(rest.next());
            let is_end = |letter: char| match sequence.as_str() {
                "[" => ('@'..='~').contains(&letter),
                _ => true,
            };
            if ["[", "(", ")", "#"].contains(&sequence.as_str()) {
                let mut more = String::new();
                for letter in rest.by_ref() {
                    more.push(letter);
                    if is_end(letter) {
                        break;
                    }
                }
                sequence.push_str(&more);
            }
            all.push(sequence);
        }
        all
    }

    proptest! {
        #[test]
        fn nothing_that_is_answered_is_left_however_it_is_cut(bits in said()) {
            let whole = passed(&bits.concat());
            let mut filter = Filter::default();
            let cut: String = bits.iter().map(|bit| filter.pass(bit)).collect();
            prop_assert_eq!(&whole, &cut);
            let mut filter = Filter::default();
            let letters: String = bits.concat().chars().map(|letter| filter.pass(letter.encode_utf8(&mut [0; 4]))).collect();
            prop_assert_eq!(&whole, &letters);
            prop_assert_eq!(&passed(&whole), &whole, "what passes once passes as it is");
            for sequence in sequences(&whole) {
                let told = sequence.strip_prefix('[');
                let is_known = told.map_or_else(
                    || ["7", "8", "D", "E", "M"].contains(&&*sequence) || sequence.len() == 2 && sequence.starts_with(['(', ')', '#']),
                    |told| {
                        let plain = told.trim_end_matches(|end: char| end.is_ascii_alphabetic() || "@`".contains(end));
                        told == "!p"
                            || told.ends_with(" q")
                            || ["?5", "?7", "?25", "?47", "?1047", "?1049"].contains(&plain) && told.ends_with(['h', 'l'])
                            || plain.chars().all(|of| of.is_ascii_digit() || ";:".contains(of)) && !told.ends_with(['c', 'n', 't', 'q', 'x', 'i', 'p'])
                    },
                );
                prop_assert!(is_known, "{:?} in {:?}", sequence, whole);
            }
        }

        #[test]
        fn text_passes_as_it_is(text in "\\PC*") {
            prop_assert_eq!(passed(&text), text);
        }
    }
}
