"""The projector of LLaVA 1.5 with the names of weights that XTuner gives it: model.0, model.2."""

from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2FN

from .configuration_projector import ProjectorConfig


class ProjectorModel(PreTrainedModel):
    """Values of the vision tower (*batch, visual_hidden_size) -> embeddings (*batch, llm_hidden_size)."""

    config_class = ProjectorConfig
    base_model_prefix = "model"

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__(config)
        layers: list[nn.Module] = []
        for number in range(config.depth):
            inputs = config.llm_hidden_size if number else config.visual_hidden_size
            layers += [ACT2FN[config.hidden_act]] if number else []
            layers.append(nn.Linear(inputs, config.llm_hidden_size, bias=config.bias))
        self.model = nn.Sequential(*layers)
        self.post_init()

    def forward(self, x: Tensor) -> Tensor:
        """x (*batch, visual_hidden_size) -> (*batch, llm_hidden_size)."""
        return self.model(x)
