"""What a rater sees: complete, balanced, repeatable, and different from what others see."""

from moslora.tasks.subject.rating.plan import draw_plan

PAIRS, CHECKS = list(range(1, 201)), [201, 202, 203, 204]


def test_a_plan_has_every_item_once_and_can_be_drawn_again():
    plan = draw_plan(7, 3, PAIRS, CHECKS)
    assert sorted(step.item for step in plan.steps) == PAIRS + CHECKS
    assert plan == draw_plan(7, 3, PAIRS, CHECKS)


def test_raters_and_seeds_differ():
    plans = [draw_plan(seed, rater, PAIRS, CHECKS) for seed in (0, 1) for rater in range(1, 16)]
    assert len({tuple(step.item for step in plan.steps) for plan in plans}) == 30
    assert len({tuple(step.b_left for step in plan.steps) for plan in plans}) == 30
    assert {plan.questions for plan in plans} == {("subject", "prompt"), ("prompt", "subject")}


def test_either_method_is_on_the_left_in_half_of_the_pairs_of_every_rater():
    for rater in range(1, 16):
        sides = {step.item: step.b_left for step in draw_plan(0, rater, PAIRS, CHECKS).steps}
        assert sum(sides[item] for item in PAIRS) == 100


def test_no_side_or_place_belongs_to_an_item():
    """Over 400 raters, a pair is on either side and in either half about equally often (five standard deviations)."""
    plans = [draw_plan(0, rater, PAIRS, CHECKS) for rater in range(1, 401)]
    for item in (1, 77, 200):
        left = sum(next(step.b_left for step in plan.steps if step.item == item) for plan in plans)
        early = sum(item in [step.item for step in plan.steps[:102]] for plan in plans)
        assert abs(left - 200) < 50
        assert abs(early - 200) < 50


def test_checks_are_spread_and_never_first():
    for rater in range(1, 50):
        places = [place for place, step in enumerate(draw_plan(0, rater, PAIRS, CHECKS).steps) if step.item > 200]
        assert places[0] > 0
        assert [place // 51 for place in places] == [0, 1, 2, 3]


def test_small_studies_have_plans_too():
    assert [step.item for step in draw_plan(0, 1, [1], []).steps] == [1]
    assert sorted(step.item for step in draw_plan(0, 1, [1], [2, 3, 4]).steps) == [1, 2, 3, 4]
