"""What completes prompts: our decoders where they fit, vLLM where it is asked for, else transformers' `generate`."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from trueup import cpu
from trueup.chat.ending import end_ids
from trueup.errors import ModelError
from trueup.sampling.types import ALL, Engine, Generated, Run, Sampling, Share

if TYPE_CHECKING:
    from torch import Tensor

    from trueup.decoding.batching import Hear

Progress = Callable[[int], None]
GENERATE = "generate of transformers"
SEED_OF_SHARE = 15_485_863  # between the seeds of one share of the prompts and the next


def engine(model: Any, tokenizer: Any, sampling: Sampling, progress: Progress = lambda done: None) -> Run:
    """What completes prompts (token ids) under a seed, with the model's active adapter as it is now.

    At most `sampling.batch_size` are worked on at a time; `progress` hears of those that are done.
    """
    if sampling.engine == "vllm":
        from trueup.sampling import vllm_engine

        model.eval()
        return vllm_engine.VllmRun(model, tokenizer, sampling, progress)
    return own(model, tokenizer, sampling, progress)


def own(model: Any, tokenizer: Any, sampling: Sampling, progress: Progress = lambda done: None) -> Own:
    """An engine of this process, whose tokens can be heard as they are drawn; its `sampling` may be replaced between
    calls."""
    model.eval()
    if sampling.engine == "generate":
        return ByGenerate(model, tokenizer, sampling, progress, why="")
    if model.device.type == "cuda":
        return OnGpu(model, tokenizer, sampling, progress)
    ours = cpu.engine(model, merged=sampling.engine == "merged")
    if ours is None and sampling.engine == "merged":
        raise _no_merged("our decoder does not know this model or adapter, or TRUEUP_CPU leaves it out")
    if ours is None:
        return ByGenerate(model, tokenizer, sampling, progress, why="")
    return OnCpu(ours, model, tokenizer, sampling, progress)


class ByGenerate:
    """transformers' own; `why` no faster one is right, where one was asked for."""

    def __init__(self, model: Any, tokenizer: Any, sampling: Sampling, progress: Progress, *, why: str) -> None:
        self.model, self.tokenizer, self.sampling, self.progress = model, tokenizer, sampling, progress
        self.ran = f"{GENERATE}: {why}" if why else GENERATE

    def __call__(
        self, prompts: list[list[int]], seed: int, share: Share = ALL, hear: Hear | None = None
    ) -> list[Generated]:
        """A completion of each prompt, in the order given."""
        from trueup.sampling import generate

        own = seed + SEED_OF_SHARE * share[0]  # equal prompts of two shares would otherwise have equal answers
        return generate.in_batches(self.model, self.tokenizer, prompts, self.sampling, own, self.progress, hear)


class OnCpu:
    """Our decoder on a CPU."""

    def __init__(self, ours: Any, model: Any, tokenizer: Any, sampling: Sampling, progress: Progress) -> None:
        self.ours, self.model, self.tokenizer = ours, model, tokenizer
        self.sampling, self.progress = sampling, progress
        self.ran = "our decoder on a CPU, " + ("a merged copy in bf16" if ours.merged else "the stored weights")

    def __call__(
        self, prompts: list[list[int]], seed: int, share: Share = ALL, hear: Hear | None = None
    ) -> list[Generated]:
        """A completion of each prompt, in the order given."""
        options = _options(self.model, self.tokenizer, self.sampling, seed, self.progress)
        done = self.ours.generate(prompts, **options, share=share, hear=hear)
        return [Generated(ids, logps) for ids, logps in done]


class OnGpu:
    """Our decoder on a GPU where it knows the model, and has been proven on its first answers; else `generate`.

    With `merged` asked for there is no other way: what stands against it is raised as ModelError.
    """

    def __init__(self, model: Any, tokenizer: Any, sampling: Sampling, progress: Progress) -> None:
        from trueup.gpu import engine as gpu
        from trueup.models import causal

        self.model, self.tokenizer, self.sampling, self.progress = model, tokenizer, sampling, progress
        merged = sampling.engine == "merged"
        found = gpu.engine(causal.bare(model), _logits(model), merged=True if merged else None)
        self.instead: ByGenerate | None = None
        self.ours: gpu.Engine | None = None
        self.proven = False
        if isinstance(found, str):
            self._leave(found)
        else:
            self.ours = found

    @property
    def ran(self) -> str:
        """By what answers were completed, once some were."""
        return self.instead.ran if self.instead else self.ours.ran if self.ours else ""

    def __call__(
        self, prompts: list[list[int]], seed: int, share: Share = ALL, hear: Hear | None = None
    ) -> list[Generated]:
        """A completion of each prompt, in the order given."""
        if hear is not None and self.instead is None and not self.proven:
            self(prompts, seed, share)  # what is heard cannot be taken back: the proof comes first
        if self.instead is None:
            done = self._ours(prompts, seed, share, hear)
            if done is not None:
                return done
        assert self.instead is not None  # noqa: S101 - `_ours` gave up
        self.instead.sampling = self.sampling
        return self.instead(prompts, seed, share, hear)

    def _ours(
        self, prompts: list[list[int]], seed: int, share: Share, hear: Hear | None = None
    ) -> list[Generated] | None:
        import torch

        from trueup.sampling import agreement

        assert self.ours is not None  # noqa: S101
        progress = self.progress if self.proven else (lambda done: None)  # answers that may be thrown away don't count
        try:
            options = _options(self.model, self.tokenizer, self.sampling, seed, progress)
            found = self.ours.generate(prompts, **options, share=share, hear=hear)
            done = [Generated(ids, logps) for ids, logps in found]
            if not self.proven:
                apart = agreement.apart(self.model, self.tokenizer, prompts, done, self.sampling)
                if fault := agreement.fault(apart, self.sampling):
                    self._leave(fault)
                    return None
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            self._leave(f"our decoder on this GPU failed ({str(error).splitlines()[0][:200]})")
            if hear is not None:  # half of the answer may have been heard
                raise
            return None
        if not self.proven:
            self.proven = True
            self.progress(len(done))
        return done

    def _leave(self, why: str) -> None:
        if self.sampling.engine == "merged":
            raise _no_merged(why)
        self.ours = None
        self.instead = ByGenerate(self.model, self.tokenizer, self.sampling, self.progress, why=why)
        _say(f"sampling with {GENERATE}, which is slower: {why}")


Own = ByGenerate | OnCpu | OnGpu


def _no_merged(why: str) -> ModelError:
    return ModelError(
        "engine: merged",
        found=why,
        expected="a model that our decoder knows, and its copy in 16 bits beside it",
        next_step="set engine: auto",
    )


def engine_bytes(model: Any, name: Engine) -> int:
    """Bytes of weights that an engine holds beside `model`: those of `merged`'s copy. vLLM counts its own."""
    if name != "merged":
        return 0
    if model.device.type == "cuda":
        from trueup.gpu import engine as gpu
        from trueup.models import causal

        return gpu.copy_bytes(causal.bare(model))
    ours = cpu.engine(model, merged=True)
    return 0 if ours is None else ours.num_bytes


def _options(model: Any, tokenizer: Any, sampling: Sampling, seed: int, progress: Progress) -> dict[str, Any]:
    """What our decoders are told."""
    return {
        "max_new_tokens": sampling.max_new_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "end_ids": end_ids(tokenizer, model),
        "seed": seed,
        "batch_size": sampling.batch_size,
        "progress": progress,
    }


def _logits(model: Any) -> Callable[[Tensor], Tensor]:
    """Logits in fp32 of normed hidden states, by one product: of a batch's rows, the whole vocabulary fits."""
    from trueup.models import causal

    layer = causal.output_layer(model)

    def logits(hidden: Tensor) -> Tensor:
        return layer.finish(layer.products(hidden)(layer.weight.to(hidden.dtype)), layer.bias)

    return logits


@functools.cache
def _say(text: str) -> None:
    """A line on standard error, once a process."""
    import click

    click.echo(text, err=True)
