"""OpenCLIP's SimpleTokenizer as a Hugging Face `tokenizers` file.

Promises: the same ids as open_clip on captions (lower-cased, white space collapsed), the start and end tokens added by the
post-processor; no truncation and no padding in the file, for the daemon pads with 0 and refuses what is too long.

What differs: OpenCLIP also runs `ftfy` (which mends wrongly decoded text) and unescapes HTML. Of that the file does what
a typed prompt can hold: curly quotes become straight ones. Anything else of it has no place in a prompt.
"""

from open_clip.tokenizer import bytes_to_unicode
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from openclip_models import merges

START, END = "<start_of_text>", "<end_of_text>"
WORDS = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def build_tokenizer(vocab_size: int) -> Tokenizer:
    rules = [tuple(line.split()) for line in merges(vocab_size)]
    symbols = list(bytes_to_unicode().values())
    words = symbols + [s + "</w>" for s in symbols] + ["".join(rule) for rule in rules] + [START, END]
    assert len(words) == vocab_size
    vocabulary = {word: i for i, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocabulary, rules, end_of_word_suffix="</w>", continuing_subword_prefix=""))
    straight_quotes = [normalizers.Replace(Regex("[‘’]"), "'"), normalizers.Replace(Regex("[“”]"), '"')]
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), *straight_quotes, normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(WORDS), behavior="removed", invert=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", special_tokens=[(START, vocabulary[START]), (END, vocabulary[END])]
    )
    tokenizer.add_special_tokens([AddedToken(START, normalized=False, special=True), AddedToken(END, normalized=False, special=True)])
    return tokenizer
