from image_finder.pipelines.runs import pipeline_function, step_names
from image_finder.pipelines.step_phases import TITLES


def test_every_step_of_both_pipelines_has_a_title_in_the_order_of_the_pipeline():
    for kind, titles in TITLES.items():
        assert list(titles) == step_names(pipeline_function(kind))
        assert len(set(titles.values())) == len(titles)
