import pytest

from moslora.errors import ConfigError
from moslora.recipes import configure, load_recipe, parse_assignments, recipe_names
from moslora.tasks.commonsense.config import CommonsenseTrainConfig, check
from moslora.tasks.vision_language.config import VisionLanguageTrainConfig
from moslora.tasks.vision_language.config import check as check_vision_language

# Table 7 of arXiv:2406.11909, column MoSLoRA.
TABLE_7 = {
    "rank": 16,
    "alpha": 32,
    "dropout": 0.05,
    "batch_size": 16,
    "epochs": 3,
    "learning_rate": 3e-5,
    "target_modules": ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"],
}


# Table 8, ranks and alphas of language model / vision tower; its batches are those of one of 4 GPUs.
TABLE_8 = {
    "llava/llama3-8b-vit-l": {
        "rank": 64,
        "alpha": 128,
        "vision_rank": 64,
        "vision_alpha": 16,
        "batch_size": 4 * 8 * 2,
        "micro_batch_size": 8,
        "learning_rate": 2e-5,
        "epochs": 1,
    },
    "llava/internlm2-7b-vit-l-q4": {
        "rank": 512,
        "alpha": 256,
        "vision_rank": 64,
        "vision_alpha": 16,
        "batch_size": 4 * 16 * 1,
        "micro_batch_size": 16,
        "learning_rate": 2e-5,
        "epochs": 1,
        "quantize": "nf4",
        "double_quantize": True,
    },
}


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("commonsense/")])
def test_every_commonsense_recipe_is_a_usable_config(name):
    check(configure(CommonsenseTrainConfig, {"model": "any"}, load_recipe(name)))


def test_the_two_recipes_of_the_paper_differ_where_table_and_script_do():
    table, script = load_recipe("commonsense/llama3-8b"), load_recipe("commonsense/llama3-8b-authors-script")
    assert TABLE_7.items() <= table.items()
    assert {key for key in {*table, *script} if table.get(key) != script.get(key)} == {"learning_rate", "dtype"}
    assert script["learning_rate"] == 3e-4


@pytest.mark.parametrize("name", [name for name in recipe_names() if name.startswith("llava/")])
def test_every_llava_recipe_is_a_usable_config(name):
    check_vision_language(configure(VisionLanguageTrainConfig, {"model": "any", "data": "any"}, load_recipe(name)))


def test_the_recipes_of_table_8_hold_its_values():
    for name, values in TABLE_8.items():
        assert values.items() <= load_recipe(name).items()
    seven = {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj"}
    assert set(load_recipe("llava/llama3-8b-vit-l")["target_modules"]) == seven
    assert set(load_recipe("llava/internlm2-7b-vit-l-q4")["target_modules"]) == seven | {"wqkv", "wo", "w1", "w2", "w3"}
    mixers = [load_recipe(name)["vision_mixer"] for name in TABLE_8]
    assert mixers == [True, False]


def test_the_authors_config_of_internlm2_differs_in_the_learning_rate_alone():
    table = load_recipe("llava/internlm2-7b-vit-l-q4")
    authors = load_recipe("llava/internlm2-7b-vit-l-q4-authors-config")
    assert {key for key in {*table, *authors} if table.get(key) != authors.get(key)} == {"learning_rate"}
    assert authors["learning_rate"] == 2e-4


def test_later_layers_win_and_types_are_kept():
    assigned = parse_assignments(["learning_rate=1", "method=lora", 'model="a b"', "target_modules=['q', 'v']"])
    config = configure(CommonsenseTrainConfig, {"learning_rate": 3e-5, "rank": 8}, assigned)
    assert (config.rank, config.learning_rate, config.method) == (8, 1.0, "lora")
    assert isinstance(config.learning_rate, float)
    assert config.target_modules == ("q", "v")


def test_one_value_is_a_list_of_one():
    config = configure(CommonsenseTrainConfig, parse_assignments(["model=m", "target_modules=all-linear"]))
    assert config.target_modules == ("all-linear",)
    with pytest.raises(ConfigError, match="target_modules = 3 is a whole number, but a list of text is expected"):
        configure(CommonsenseTrainConfig, parse_assignments(["model=m", "target_modules=3"]))


def test_every_problem_is_named_at_once():
    with pytest.raises(ConfigError) as caught:
        configure(CommonsenseTrainConfig, {"rnak": 4, "rank": "four", "dtype": "int8", "batch_size": True})
    message = str(caught.value)
    assert "unknown key 'rnak': did you mean 'rank'?" in message
    assert "rank = 'four' is text, but a whole number is expected" in message
    assert "dtype = 'int8' is text, but one of 'auto', 'float32', 'bfloat16', 'float16' is expected" in message
    assert "batch_size = True is true or false, but a whole number is expected" in message


def test_an_unknown_recipe_names_the_nearest_and_a_broken_file_its_line(tmp_path):
    with pytest.raises(ConfigError, match="Did you mean 'commonsense/llama3-8b'"):
        load_recipe("commonsense/llama3")
    path = tmp_path / "mine.toml"
    path.write_text("rank = \n")
    with pytest.raises(ConfigError, match="line 1"):
        load_recipe(str(path))
    with pytest.raises(ConfigError, match="Expected key=value, found 'rank'"):
        parse_assignments(["rank"])
