"""Topics of questions: clusters of their words, named by the words that set them apart."""

from __future__ import annotations

from collections.abc import Sequence

from noria.errors import Unavailable

LEAST = 60
"""With fewer texts no topics are sought."""
PER_TOPIC = 40
"""Texts that a topic should have on average."""
MOST = 8
NAMED_BY = 3
"""Words in a topic's name."""
DIMENSIONS = 40
SPREAD = 0.6
"""Words in more than this share of the texts say nothing about a topic."""


LETTERS = r"[^\W\d_]{2,}"
"""What counts as a word: numbers of orders and the like say nothing about a topic."""


def of(texts: Sequence[str]) -> list[str]:
    """The topic of each text, such as `parcel, delivery, late`; nothing for too few texts or words.

    TF-IDF of words, reduced by latent semantic analysis (Deerwester et al. 1990), k-means. Texts with none of the
    words in use have the topic `other`. The same texts give the same topics. Raises Unavailable without scikit-learn.
    """
    if len(texts) < LEAST:
        return []
    try:
        import numpy as np
        from sklearn.cluster import KMeans
        from sklearn.decomposition import TruncatedSVD
        from sklearn.feature_extraction.text import TfidfVectorizer
        from sklearn.preprocessing import normalize
        from threadpoolctl import threadpool_limits
    except ModuleNotFoundError as error:
        raise Unavailable(f"'{error.name}' is not installed", "pip install 'noria[evaluate]'") from error
    words = TfidfVectorizer(token_pattern=LETTERS, stop_words="english", min_df=3, max_df=SPREAD, sublinear_tf=True)
    try:
        weights = words.fit_transform(texts)
    except ValueError:
        # Not one word is in three texts and in less than the spread.
        return []
    told = np.asarray(weights.sum(axis=1)).ravel() > 0
    count = min(MOST, len(texts) // PER_TOPIC, weights.shape[1] - 1)
    if count < 2 or told.sum() < LEAST:
        return []
    # In one thread: sums in another order would move texts on the border of two topics.
    with threadpool_limits(1):
        reduced = TruncatedSVD(min(DIMENSIONS, weights.shape[1] - 1), random_state=0).fit_transform(weights[told])
        labels = KMeans(count, n_init=10, random_state=0).fit_predict(normalize(reduced))
    terms = words.get_feature_names_out()
    everywhere = np.asarray(weights[told].mean(axis=0)).ravel()
    names = []
    for label in range(count):
        apart = np.asarray(weights[told][labels == label].mean(axis=0)).ravel() - everywhere
        best = sorted(range(len(terms)), key=lambda number: (-apart[number], terms[number]))[:NAMED_BY]
        names.append(", ".join(terms[number] for number in best))
    found = iter(labels)
    return [names[next(found)] if known else "other" for known in told]
