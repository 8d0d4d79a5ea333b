from vqvae2.evaluation.accuracy_score import evaluate_accuracy_score
from vqvae2.evaluation.evaluation import Evaluation
from vqvae2.metrics.classifier import ClassifierTraining


def test_the_accuracy_score_has_a_classifier_per_source_and_two_tests_of_each(folder):
    reports = []
    evaluation = Evaluation.open(folder, progress=lambda *report: reports.append(report))
    score = evaluate_accuracy_score(
        evaluation, 1000, ClassifierTraining(depth=8, steps=2, batch=8)
    )
    assert list(score.trained_on) == ["real", "reconstructions", "samples"]
    for tested in score.trained_on.values():
        assert set(tested) == {"real", "reconstructions"}
        for accuracy in tested.values():
            assert 0 <= accuracy.top1 <= 1
            assert len(accuracy.by_class) == 12
    assert score.num_images == len(evaluation.splits.train)
    assert folder.read_metrics().accuracy_score == score
    titles = {title for title, _, _ in reports}
    assert titles >= {"classifier of real", "classifier of samples", "samples"}
