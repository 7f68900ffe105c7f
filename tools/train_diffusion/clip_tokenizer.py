"""A small vocabulary in the layout of CLIP's tokenizer: the bytes, the bytes that end a word, and merges that build given words."""
import json
import pathlib

from transformers import CLIPTokenizer

START, END = "<|startoftext|>", "<|endoftext|>"


def pieces(word: str, merges: list[tuple[str, str]]) -> list[str]:
    """What the merges make of a word: of the pairs that are there the earliest in the list is merged, until none is."""
    parts, ranks = [*word[:-1], word[-1] + "</w>"], {merge: rank for rank, merge in enumerate(merges)}
    while pairs := [pair for pair in zip(parts, parts[1:]) if pair in ranks]:
        best = min(pairs, key=ranks.get)
        at = next(i for i in range(len(parts) - 1) if (parts[i], parts[i + 1]) == best)
        parts[at:at + 2] = ["".join(best)]
    return parts


def write(folder: pathlib.Path, words: list[str], length: int, pad: str = END) -> CLIPTokenizer:
    """Writes vocab.json, merges.txt and the special tokens; gives the tokenizer that transformers reads from them."""
    visible = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = [chr(byte) for byte in visible] + [chr(256 + index) for index in range(256 - len(visible))]
    tokens = letters + [letter + "</w>" for letter in letters]
    merges = []
    for word in words:
        # A later merge changes no word that earlier ones make whole.
        while len(parts := pieces(word, merges)) > 1:
            merges.append((parts[0], parts[1]))
            tokens.append(parts[0] + parts[1])
    tokens += [START, END]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: index for index, token in enumerate(tokens)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    special = dict(bos_token=START, eos_token=END, unk_token=END, pad_token=pad)
    (folder / "special_tokens_map.json").write_text(json.dumps(special, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        dict(tokenizer_class="CLIPTokenizer", model_max_length=length, do_lower_case=True, **special), indent=2))
    return CLIPTokenizer.from_pretrained(folder)
