"""Trains a small latent-diffusion model on drawn shapes and writes it as a diffusers directory.

Run: make diffusion-model   (or python tools/train_diffusion/train.py OUTPUT; packages: tools/train_diffusion/requirements.txt)
CPU only, two threads, fixed seed and number of steps. Each stage and every 200 steps leave a checkpoint in OUTPUT.parts, from which an
interrupted run goes on: each step draws from a seed of its own, so the result is that of an uninterrupted run.
"""
import argparse
import pathlib
import shutil
import time

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

import clip_tokenizer
import pictures

SEED = 20261121
LENGTH = 16
POOL = 8192
BATCH = 16
WORDS = [*pictures.COLOURS, *pictures.SHAPES, "a", "left", "right", "of", "above", "below"]


def say(*words) -> None:
    print(f"{time.process_time():8.1f} s CPU", *words, flush=True)


# MARK: Training

def make_vae() -> AutoencoderKL:
    return AutoencoderKL(
        in_channels=3, out_channels=3, latent_channels=8, block_out_channels=(16, 24, 48, 48), layers_per_block=1,
        norm_num_groups=8, mid_block_add_attention=False, sample_size=pictures.SIZE,
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)


def make_unet() -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=pictures.SIZE // 8, in_channels=8, out_channels=8, block_out_channels=(88, 88), layers_per_block=1,
        norm_num_groups=8, cross_attention_dim=128, attention_head_dim=4,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"), up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"))


def make_text_encoder(tokenizer: CLIPTokenizer) -> CLIPTextModel:
    return CLIPTextModel(CLIPTextConfig(
        vocab_size=len(tokenizer), hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=4,
        max_position_embeddings=LENGTH, hidden_act="quick_gelu", bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id))


def drawn(scenes: list[pictures.Scene]) -> torch.Tensor:
    """The pictures in -1...1, NCHW."""
    stacked = np.stack([pictures.draw(scene) for scene in scenes])
    return (torch.from_numpy(stacked).permute(0, 3, 1, 2) * 2 - 1).contiguous(memory_format=torch.channels_last)


class Stage:
    """A training loop over numbered steps, each with random numbers of its own, with checkpoints and averaged weights."""

    def __init__(self, name: str, folder: pathlib.Path, modules: list[torch.nn.Module], steps: int, rate: float):
        self.name, self.path, self.steps, self.rate = name, folder / f"{name}.pt", steps, rate
        self.parameters = [p for module in modules for p in module.parameters()]
        self.averages = [p.detach().clone() for p in self.parameters]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=rate, betas=(0.9, 0.99), weight_decay=0.01)

    def run(self, loss_of, seed: int) -> None:
        first = self.restore()
        begin, total = time.process_time(), 0.0
        for step in range(first, self.steps):
            rng = np.random.default_rng([seed, step])
            torch.manual_seed(int(rng.integers(1 << 62)))
            rate = self.rate * min(1, (step + 1) / 50, 0.01 + (self.steps - step) / (0.3 * self.steps))
            for group in self.optimizer.param_groups:
                group["lr"] = rate
            loss = loss_of(step, rng)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
            self.optimizer.step()
            decay = min(0.995, (step + 1) / (step + 10))
            with torch.no_grad():
                torch._foreach_lerp_(self.averages, self.parameters, 1 - decay)
            total += loss.item()
            if (step + 1) % 50 == 0 or step + 1 == self.steps:
                say(f"{self.name} {step + 1}/{self.steps} loss {total / 50:.5f}",
                    f"{(time.process_time() - begin) / (step + 1 - first):.3f} s CPU a step")
                total = 0.0
            if (step + 1) % 200 == 0 or step + 1 == self.steps:
                self.save(step + 1)
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, self.averages)

    def save(self, step: int) -> None:
        state = dict(step=step, parameters=self.parameters, averages=self.averages, optimizer=self.optimizer.state_dict())
        torch.save(state, self.path.with_suffix(".new"))
        self.path.with_suffix(".new").replace(self.path)

    def restore(self) -> int:
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True)
        with torch.no_grad():
            torch._foreach_copy_(self.parameters, [p.detach() for p in state["parameters"]])
        self.averages = state["averages"]
        self.optimizer.load_state_dict(state["optimizer"])
        return state["step"]


def train_vae(vae: AutoencoderKL, folder: pathlib.Path, steps: int) -> None:
    """Most steps see a quarter of each picture, around its shapes: four times as many edges for the time."""
    def loss_of(step: int, rng: np.random.Generator) -> torch.Tensor:
        is_whole = step >= steps * 3 // 4
        batch = drawn([pictures.scene(rng) for _ in range(8 if is_whole else 32)])
        if not is_whole:
            corners = rng.integers(8, 25, (len(batch), 2))
            batch = torch.stack([x[:, a:a + 32, b:b + 32] for x, (a, b) in zip(batch, corners)])
            batch = batch.contiguous(memory_format=torch.channels_last)
        posterior = vae.encode(batch).latent_dist
        decoded = vae.decode(posterior.sample()).sample
        kl = 0.5 * (posterior.mean ** 2 + posterior.var - 1 - posterior.logvar).mean()
        return F.l1_loss(decoded, batch) + F.mse_loss(decoded, batch) + 5e-4 * kl

    Stage("vae", folder, [vae], steps, 3e-3).run(loss_of, SEED)
    with torch.no_grad():
        batch = drawn([pictures.scene(np.random.default_rng([SEED, 1, i])) for i in range(64)])
        latents = vae.encode(batch).latent_dist.mean
        vae.register_to_config(scaling_factor=round(1 / latents.std().item(), 4))
        decoded = vae.decode(latents).sample
        say(f"vae: mean difference {(decoded - batch).abs().mean() * 127.5:.2f}/255, scaling {vae.config.scaling_factor},",
            f"latent means {latents.mean((0, 2, 3)).tolist()}")


def make_pool(vae: AutoencoderKL, folder: pathlib.Path) -> tuple[list[pictures.Scene], torch.Tensor]:
    """Scenes and their latents, encoded once."""
    scenes = [pictures.scene(np.random.default_rng([SEED, 3, index])) for index in range(POOL)]
    path = folder / "pool.pt"
    if not path.exists():
        with torch.no_grad():
            parts = [vae.encode(drawn(scenes[i:i + 64])).latent_dist.mean for i in range(0, POOL, 64)]
        torch.save(torch.cat(parts), path)
        say("pictures encoded:", POOL)
    return scenes, torch.load(path, weights_only=True) * vae.config.scaling_factor


def train_text_encoder(text_encoder, ids: torch.Tensor, captions: torch.Tensor, pool: torch.Tensor, folder: pathlib.Path, steps: int):
    """The text encoder learns, by itself, to say which latents a caption means: the last state, through one matrix, is their mean.

    By itself this is quick, and a U-Net that starts with captions already read has only drawing to learn.
    """
    head = torch.nn.Linear(text_encoder.config.hidden_size, pool[0].numel())

    def loss_of(step: int, rng: np.random.Generator) -> torch.Tensor:
        chosen = torch.from_numpy(rng.integers(POOL, size=64))
        return F.mse_loss(head(text_encoder(ids[captions[chosen]]).last_hidden_state[:, -1]), pool[chosen].flatten(1))

    Stage("text_encoder", folder, [text_encoder, head], steps, 2e-3).run(loss_of, SEED + 2)


def train_unet(unet, states: torch.Tensor, captions: torch.Tensor, pool: torch.Tensor, scheduler, folder: pathlib.Path, steps: int):
    signal = scheduler.alphas_cumprod.sqrt()[:, None, None, None]
    noise_share = (1 - scheduler.alphas_cumprod).sqrt()[:, None, None, None]

    def loss_of(step: int, rng: np.random.Generator) -> torch.Tensor:
        chosen = torch.from_numpy(rng.integers(POOL, size=BATCH))
        # Some captions are left out, for guidance: state 0 is that of the empty one.
        conditions = states[torch.where(torch.rand(BATCH) < 0.1, 0, captions[chosen])]
        latents = pool[chosen].contiguous(memory_format=torch.channels_last)
        # One time of each of as many equal stretches: every batch sees them all.
        times = ((torch.arange(BATCH) + torch.rand(BATCH)) * 1000 / BATCH).long()
        noise = torch.randn_like(latents)
        noisy = signal[times] * latents + noise_share[times] * noise
        velocity = signal[times] * noise - noise_share[times] * latents
        return F.mse_loss(unet(noisy, times, conditions).sample, velocity)

    Stage("unet", folder, [unet], steps, 1.5e-3).run(loss_of, SEED + 1)


# MARK: Result

def test_scenes(count: int) -> list[pictures.Scene]:
    """Scenes whose shapes have different colours, so that each can be found."""
    scenes, index = [], 0
    while len(scenes) < count:
        scene = pictures.scene(np.random.default_rng([SEED, 2, index]))
        index += 1
        if len({shape.colour for shape in scene.shapes}) == len(scene.shapes):
            scenes.append(scene)
    return scenes


def measure(pipeline: StableDiffusionPipeline, count: int) -> float:
    pipeline.set_progress_bar_config(disable=True)
    scenes, right = test_scenes(count), []
    for index in range(0, count, 16):
        part = scenes[index:index + 16]
        drawn = pipeline(
            [scene.caption for scene in part], num_inference_steps=20, guidance_scale=2.0, output_type="np",
            generator=[torch.Generator().manual_seed(index + i) for i in range(len(part))]).images
        right += [pictures.shows(picture, scene) for picture, scene in zip(drawn, part)]
    say(f"{sum(right)} of {count} pictures show what their captions say; not:",
        [scene.caption for scene, ok in zip(scenes, right) if not ok][:8])
    return sum(right) / count


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("output", type=pathlib.Path)
    parser.add_argument("--vae-steps", type=int, default=1000)
    parser.add_argument("--text-steps", type=int, default=800)
    parser.add_argument("--unet-steps", type=int, default=4500)
    parser.add_argument("--measured", type=int, default=192)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(SEED)
    parts = arguments.output.with_name(arguments.output.name + ".parts")
    parts.mkdir(parents=True, exist_ok=True)
    tokenizer = clip_tokenizer.write(arguments.output / "tokenizer", WORDS, LENGTH)
    vae, unet, text_encoder = make_vae(), make_unet(), make_text_encoder(tokenizer)
    for module in (vae, unet):
        module.to(memory_format=torch.channels_last)
    scheduler = DDIMScheduler(
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", prediction_type="v_prediction",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1, timestep_spacing="leading")
    say("parameters:", {type(m).__name__: sum(p.numel() for p in m.parameters()) for m in (vae, unet, text_encoder)})
    train_vae(vae, parts, arguments.vae_steps)
    vae.requires_grad_(False)
    scenes, pool = make_pool(vae, parts)
    texts = ["", *sorted({scene.caption for scene in scenes})]
    numbers = {text: index for index, text in enumerate(texts)}
    captions = torch.tensor([numbers[scene.caption] for scene in scenes])
    ids = tokenizer(texts, padding="max_length", max_length=LENGTH, return_tensors="pt").input_ids
    train_text_encoder(text_encoder, ids, captions, pool, parts, arguments.text_steps)
    with torch.no_grad():
        states = text_encoder(ids).last_hidden_state
    train_unet(unet, states, captions, pool, scheduler, parts, arguments.unet_steps)
    for module in (vae, unet):
        module.to(memory_format=torch.contiguous_format)
    pipeline = StableDiffusionPipeline(
        vae=vae, text_encoder=text_encoder, tokenizer=tokenizer, unet=unet, scheduler=scheduler, safety_checker=None,
        feature_extractor=None, requires_safety_checker=False).to(torch.float16)
    pipeline.save_pretrained(arguments.output)
    measure(pipeline.to(torch.float32), arguments.measured)
    shutil.rmtree(parts)


if __name__ == "__main__":
    main()
