//! No text makes the extractor panic, and an answer is a part of the text.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reckon_rewards::{AnswerFrom, ExtractOptions, Extractor};

fuzz_target!(|text: &str| {
    for from in [AnswerFrom::Tag, AnswerFrom::LastLine, AnswerFrom::AfterThoughts, AnswerFrom::Whole] {
        let options = ExtractOptions { from, ..ExtractOptions::default() };
        let extractor = Extractor::new("fuzz", &options).expect("the options make sense");
        if let Ok(answer) = extractor.answer(text) {
            assert!(text.contains(answer));
        }
    }
});
