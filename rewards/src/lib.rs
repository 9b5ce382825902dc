//! Rule-based verifiers and the rubric that combines them. No tensors, no tokenizer.
