"""A loaded model as somebody who answers: the half of the evaluation that needs torch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from ....errors import RunError
from ...models import resolve_dtype
from ..images import pixels
from ..model import load_base, load_finished, load_processor
from ..prompt import USER, ChatForm, Turn
from .asking import Question
from .config import VisionEvalConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin


class ModelAnswerer:
    """A vision-language model that answers batches of questions by greedy search.

    Args:
        model: in evaluation mode, on its device.
        processor: of the model.
        pad_to_square: how the model was shown images in training.
    """

    def __init__(self, model: "PreTrainedModel", processor: "ProcessorMixin", *, pad_to_square: bool) -> None:
        self.model, self.processor, self.pad_to_square = model, processor, pad_to_square
        self.form = ChatForm(processor)

    @torch.inference_mode()
    def answer(self, questions: Sequence[Question], max_new_tokens: int) -> list[str]:
        """The model's text after each question, without special tokens.

        Args:
            questions: of one batch. An image token that stands in a question is taken out: the image is shown once.
            max_new_tokens: generated at most.

        Raises:
            RunError: out of memory.
        """
        tokenizer, device = self.processor.tokenizer, self.model.device
        texts = [question.text.replace(self.form.image_token, "") for question in questions]
        prompts = [self.form.question_ids([Turn(USER, text, has_image=True)]) for text in texts]
        inputs = tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(device)
        shown = [pixels(question.image, self.processor, pad_to_square=self.pad_to_square) for question in questions]
        try:
            tokens = self.model.generate(
                **inputs,
                pixel_values=torch.stack([torch.as_tensor(each) for each in shown]).to(device, self.model.dtype),
                max_new_tokens=max_new_tokens,
                num_beams=1,
                do_sample=False,
                temperature=None,
                top_p=None,
                top_k=None,
                pad_token_id=tokenizer.pad_token_id,
                eos_token_id=self.form.stop_ids(),
            )
        except torch.OutOfMemoryError as error:
            raise RunError(
                f"Out of memory with {len(prompts)} questions of up to {inputs['input_ids'].shape[1]} tokens. What is "
                f"answered is kept: repeat the command with --batch-size {max(1, len(prompts) // 2)}."
            ) from error
        outputs = tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [output.strip() for output in outputs]


def load_answerer(config: VisionEvalConfig, record: dict[str, Any]) -> ModelAnswerer:
    """The model of a run, or the base model it started from, ready to answer.

    Args:
        config: settings of the evaluation.
        record: run.json of the run.

    Raises:
        ConfigError: the model cannot be loaded.
    """
    trained = record["config"]
    dtype, trust = resolve_dtype(trained["dtype"]), trained["trust_remote_code"]
    if config.base_only:
        model = load_base(
            trained["model"],
            dtype,
            quantize=trained["quantize"],
            double_quantize=trained["double_quantize"],
            trust_remote_code=trust,
        )
    else:
        model = load_finished(config.run, record, dtype)
    if trained["quantize"] == "none":  # bitsandbytes has put the others where they are used
        model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    processor = load_processor(trained["model"], trust)
    return ModelAnswerer(model.eval(), processor, pad_to_square=trained["pad_to_square"])
