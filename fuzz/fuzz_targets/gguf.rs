//! Any bytes are a model in a GGUF file or an error, and never take more memory than the file and a fixed room. Run it
//! with `-max_len=200000 -malloc_limit_mb=256 -rss_limit_mb=1024` on files that
//! `reckon export --gguf` wrote.
#![no_main]

use libfuzzer_sys::fuzz_target;
use reckon::model::files::TensorFile;
use reckon::model::files::gguf::Model;

fuzz_target!(|bytes: &[u8]| {
    let Ok(mut model) = Model::from_bytes(bytes) else { return };
    let names: Vec<String> = model.weights.names().into_iter().map(str::to_owned).collect();
    for name in names {
        let mut count = 0;
        let read = model.weights.read(&name, &mut |first, values| {
            assert_eq!(first, count, "the pieces of {name} follow one another");
            count += values.len();
            Ok(())
        });
        if read.is_ok() {
            let shape = model.weights.shape(&name).expect("a tensor that was read has a shape");
            assert_eq!(count, shape.iter().product::<usize>(), "{name} is read whole");
        }
    }
});
