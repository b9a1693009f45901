"""What learning is configured by: budget, paths, penalty, E-steps and M-steps."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from dr_core.config import Config
from dr_core.learning.mixed_targets import MixedTargetsConfig
from dr_core.learning.samples import SamplesConfig
from dr_core.learning.trainer import TrainingConfig
from dr_core.model.encoder import EncoderConfig
from dr_core.model.reranker import RerankerConfig
from dr_core.model.structure_config import StructureConfig
from dr_core.paths.health import HealthLimits
from dr_core.retrieval.config import ServingConfig


class BudgetConfig(Config):
    """What retrieval may cost. alpha and the number of paths follow from it."""

    candidate_share: float = Field(0.025, gt=0, le=1)
    """Candidates a user as a share of the items; ignored when `candidates` or `recall` is given."""
    candidates: int | None = Field(None, ge=1)
    """C, candidates a user."""
    recall: float | None = Field(None, gt=0, lt=1)
    """Share of the softmax's best `training.validation_k` items that the candidates should hold, in the place of a number of
    candidates: C is then measured after the warm-up, on the clusters that paths start from."""
    candidate_cost: float = Field(1.0, gt=0, allow_inf_nan=False)
    """What ranking one candidate costs, in products of E multiply-adds: 1 for the dot product, hundreds for a network. The
    dearer a candidate, the shorter the paths."""
    beam: int = Field(10, ge=1)
    """B, paths a user's search should need to find them. C / B items then lie on a visited path.
    `structure.normaliser: layers` only."""

    @model_validator(mode="after")
    def _one_wish(self) -> Self:
        if self.candidates is not None and self.recall is not None:
            raise ValueError(
                "candidates and recall both say how much is searched: set one of them, leave the other null"
            )
        return self

    def expected_candidates(self, num_items: int) -> float:
        """Return C; where a recall is wanted, what C may be before it is measured."""
        return float(self.candidates or max(1.0, self.candidate_share * num_items))


class PathsConfig(Config):
    """The shape of the structure and where it starts."""

    nodes: tuple[Annotated[int, Field(ge=2)], ...] | None = None
    """Nodes of each layer, the first layer first, where layers are to differ: `[512, 32]`. It stands in the place of
    `num_nodes` and `num_layers`."""
    num_nodes: Annotated[int, Field(ge=2)] | Literal["auto"] = "auto"
    """K, nodes a layer, or `auto`. With `structure.normaliser: global`, `auto` measures after the warm-up how candidates fall
    and nodes rise with the number of paths, and takes the number at which a search does least work: many prefixes, 32 or 16
    children each. With `layers` it is the smallest K with K^D >= path_length_slack x V J / (items on a visited path)."""
    path_length_slack: float = Field(2.0, ge=1)
    """How many times longer a visited path may be than the mean path. More lets the M-step make what is visited often longer,
    which saves beams; less keeps paths even, which saves candidates. `layers` only."""
    num_layers: int = Field(2, ge=2)
    """D, layers."""
    paths_per_item: int = Field(1, ge=1)
    """J, paths an item stands on; with energies that are refined the most, since an item then gets a further path only where
    this one brings more than it costs."""
    start: Literal["embedding", "random"] = "embedding"
    """`embedding`: balanced hierarchical k-means of the items' profiles under the softmax; `random`: as in the paper."""
    profile_states: int = Field(8192, ge=64)
    """User states on which the items' profiles are taken."""
    profile_dimensions: int = Field(64, ge=2)
    """Singular directions of the profiles that k-means sees."""
    popularity_weight: float = Field(0.7, ge=0)
    """Weight of an item's popularity beside its profile: higher keeps items of equal popularity together."""
    kmeans_capacity: float = Field(1.2, ge=1)
    """Largest size of a k-means child, as a multiple of the mean."""
    kmeans_refinement: int = Field(4, ge=0)
    """Lloyd steps of each parent's own children, after the directions shared by all parents: more makes tighter paths,
    fewer makes them easier to predict."""
    kmeans_restarts: int = Field(4, ge=1)
    """Trees fitted with different seeds; the one whose best paths hold most of the softmax's mass is kept."""
    kmeans_sample: int = Field(500_000, ge=1000)
    """Items the centroids are learned on; further items are assigned to them on Spark."""

    @model_validator(mode="before")
    @classmethod
    def _layers_of_nodes(cls, given: Any) -> Any:
        nodes = given.get("nodes") if isinstance(given, dict) else None
        if isinstance(nodes, list | tuple) and len(nodes) > 1:
            return {"num_layers": len(nodes)} | given
        return given

    @model_validator(mode="after")
    def _one_shape(self) -> Self:
        if self.nodes is not None and (self.num_nodes != "auto" or self.num_layers != len(self.nodes)):
            raise ValueError(
                f"nodes={list(self.nodes)} with num_nodes={self.num_nodes} and num_layers={self.num_layers}: give either the"
                " nodes of two layers or more, or one K by num_nodes and num_layers with nodes=null"
            )
        return self


class PenaltyConfig(Config):
    """The penalty alpha * sum f(|c|) that keeps paths apart (paper, section 2.1)."""

    power: int = Field(4, ge=2, le=8)
    """f(c) = c^power / power; the paper's is 4."""
    alpha: Annotated[float, Field(ge=0, allow_inf_nan=False)] | Literal["auto"] = "auto"
    """Weight of the penalty; `auto` derives it from the budget and corrects it by measurement."""
    corrections: int = Field(3, ge=0)
    """Times an M-step may be repeated with a corrected alpha when `alpha` is `auto`."""


class EMConfig(Config):
    """How often what is trained on day one."""

    rounds: int = Field(2, ge=1)
    """T, M-steps. Each is preceded by an E-step, and one more E-step fits the model to the last mapping."""
    warm_up_epochs: int = Field(12, ge=1)
    """Epochs of encoder and softmax before there are paths."""
    joint_epochs: int = Field(0, ge=0)
    """Epochs of the first E-step in which encoder and softmax go on learning with the structure (paper: 2)."""
    e_step_epochs: int = Field(4, ge=1)
    """Epochs of every E-step but the last; encoder and softmax frozen. Before energies are refined it is one, whatever this
    says: the refinement fits energies of its own."""
    final_epochs: int = Field(6, ge=1)
    """Epochs of the E-step after the last M-step."""
    likelihood_blocks: int = Field(4, ge=1)
    """Sample blocks on which the true likelihood is measured before and after an M-step."""


class AssignmentConfig(Config):
    """The M-step (paper, Algorithm 2)."""

    m_step: Literal["auto", "descent", "refinement", "both"] = "auto"
    """`descent`: coordinate descent on the scores (Algorithm 2). `refinement`: items move to the paths whose visitors the
    softmax wants them for; no scores are collected. `both`: the descent, then the refinement of the better of its mapping
    and the one before it. `auto` is `descent` where the refinement cannot run; else `refinement` for energies, which the
    descent only makes dearer (docs/decisions.md), and `both` for a product of layers."""
    num_sweeps: int = Field(4, ge=1)
    """Passes over all items; the paper says 3 to 5."""
    num_partitions: int = Field(1, ge=1)
    """Parts of the items swept side by side by Spark; 1 is exact coordinate descent in a single task."""
    block_items: int = Field(262_144, ge=1)
    """Items that a task holds at a time: about 60 MB with S = 20."""
    refine_sweeps: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Sweeps of the refinement; under a product of layers with J = 1 only. `auto`: 5 for energies, 20 for a product of
    layers. 0 means that there is none."""
    refine_states: int = Field(30_000, ge=64)
    """User states whose visits paths are refined by; for a product of layers the first 8,192 of them."""
    refine_epochs: int = Field(2, ge=0)
    """Passes in which energies are fitted to each mapping before they say what is visited."""
    refine_capacity: Annotated[float, Field(ge=1)] | Literal["auto"] = "auto"
    """Largest path that still takes items in these sweeps, as a multiple of the mean path. `auto`: 6 for energies, which
    pay for candidates whatever the path, less where a path would then hold more than 4 % of the items; 1.75 for a product of
    layers."""
    refine_items: int = Field(500_000, ge=1)
    """Most items that are refined: the refinement runs in one process."""


class ScoresConfig(Config):
    """How s[v, c] is collected."""

    num_candidates: int = Field(20, ge=1)
    """S: beam of the inference, and paths kept an item besides its current ones."""
    candidates_per_block: int | None = Field(None, ge=1)
    """S': keep only this many paths an item in each block before the shuffle (approximate); none is exact."""


class LearningConfig(Config):
    """Everything that learning depends on once the events are there; a run's configuration adds the rest."""

    seed: int = Field(0, ge=0)
    """Root of all randomness; `--seeds N` runs seed, seed + 1, …"""
    samples: SamplesConfig = SamplesConfig()
    """Training samples."""
    encoder: EncoderConfig = EncoderConfig()
    """The user encoder."""
    structure: StructureConfig = StructureConfig()
    """p(c|x)."""
    reranker: RerankerConfig = RerankerConfig()
    """The softmax."""
    training: TrainingConfig = TrainingConfig()
    """The optimizer and its processes."""
    mixed_targets: MixedTargetsConfig = MixedTargetsConfig()
    """Targets drawn from the softmax."""
    budget: BudgetConfig = BudgetConfig()
    """What retrieval may cost."""
    paths: PathsConfig = PathsConfig()
    """K, D, J and the start."""
    penalty: PenaltyConfig = PenaltyConfig()
    """alpha and f."""
    scores: ScoresConfig = ScoresConfig()
    """s[v, c]."""
    assignment: AssignmentConfig = AssignmentConfig()
    """The M-step."""
    health: HealthLimits = HealthLimits()
    """When a structure counts as collapsed."""
    em: EMConfig = EMConfig()
    """Rounds and epochs."""
    serving: ServingConfig = ServingConfig()
    """How a release answers."""

    @model_validator(mode="after")
    def _product_of_even_layers(self) -> Self:
        nodes = self.paths.nodes
        if self.structure.normaliser == "layers" and nodes is not None and len(set(nodes)) > 1:
            raise ValueError(
                f"paths.nodes={list(nodes)} with structure.normaliser=layers: a product of layers has as many nodes in each;"
                " set structure.normaliser=global, or one K by paths.num_nodes"
            )
        return self

    @property
    def history_length(self) -> int:
        """L, the one length that is trained on, kept and served."""
        return self.serving.history_length
