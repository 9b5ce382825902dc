"""The tokenizer of the tiny models among the fixtures: each character is a token."""

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers


def save_tokenizer(folder, vocab):
    letters = {chr(ord("0") + i): i for i in range(vocab)}
    tokenizer = Tokenizer(models.WordLevel(letters, unk_token="0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("."), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
