//! Texts that strangers and callers have a say in, as people are shown them.

use std::borrow::Cow;

/// What stands for what was left out.
const LEFT_OUT: &str = "…";

/// A text of at most `most` bytes: what is longer loses its middle, since often the end tells the most.
#[must_use]
pub fn shorten(text: &str, most: usize) -> Cow<'_, str> {
    if text.len() <= most {
        return Cow::Borrowed(text);
    }
    let kept = most.saturating_sub(LEFT_OUT.len());
    let head = text.floor_char_boundary(kept / 2);
    let tail = text.ceil_char_boundary(text.len() - kept / 2);
    Cow::Owned([&text[..head], LEFT_OUT, &text[tail..]].concat())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn what_is_too_long_loses_its_middle(text in ".{0,80}", most in 3usize..100) {
            let short = shorten(&text, most);
            prop_assert!(short.len() <= most);
            if text.len() <= most {
                prop_assert_eq!(&*short, text.as_str());
            } else {
                let (head, tail) = short.split_once(LEFT_OUT).unwrap();
                prop_assert!(text.starts_with(head) && text.ends_with(tail) && short.len() + 10 > most);
            }
        }
    }
}
