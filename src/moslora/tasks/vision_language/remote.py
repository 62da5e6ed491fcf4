"""Language models that transformers does not know, such as InternLM2: Python code in the folder of the LLaVA model."""

from ...errors import ConfigError


def admit_language_model(place: str, trust_remote_code: bool) -> None:
    """Tell transformers of a language model whose code comes with the weights; nothing if it knows it already.

    Transformers runs such code for a whole model, but not for a part of one.

    Args:
        place: folder or hub id of a LLaVA-shaped model.
        trust_remote_code: the code may be run.

    Raises:
        ConfigError: the code may not be run, or it does not name its config and its model.
    """
    from transformers import AutoConfig, AutoModel, PretrainedConfig
    from transformers.dynamic_module_utils import get_class_from_dynamic_module
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    try:
        text = PretrainedConfig.get_config_dict(place)[0].get("text_config")
    except (OSError, ValueError):
        return  # whoever loads the config says what is wrong with it
    kind = text.get("model_type", "") if isinstance(text, dict) else ""
    if not kind or kind in CONFIG_MAPPING:
        return
    if not trust_remote_code:
        raise ConfigError(
            f"The language model of {place!r} is of the kind {kind}, which transformers does not know. If its code "
            "comes with it and you trust that, give --trust-remote-code. InternLM2 is such a model; InternLM3 is part "
            "of transformers."
        )
    code = text.get("auto_map", {})
    if not {"AutoConfig", "AutoModel"} <= code.keys():
        raise ConfigError(
            f"text_config in config.json of {place!r} does not say where the code of {kind} is: expected auto_map with "
            f"AutoConfig and AutoModel, found {', '.join(code) or 'none'}."
        )
    config_class = get_class_from_dynamic_module(code["AutoConfig"], place)
    AutoConfig.register(kind, config_class)
    AutoModel.register(config_class, get_class_from_dynamic_module(code["AutoModel"], place))
