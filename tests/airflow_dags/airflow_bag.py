"""The project's DAGs, loaded as Airflow's DAG processor does. Runs in Airflow's environment."""

from airflow.dag_processing.bundles.manager import DagBundlesManager
from airflow.dag_processing.dagbag import BundleDagBag


def load() -> BundleDagBag:
    """Return the bag of all DAGs in the DAGs folder."""
    (bundle,) = DagBundlesManager().get_all_dag_bundles()
    bundle.initialize()
    return BundleDagBag(dag_folder=bundle.path, bundle_path=bundle.path, bundle_name=bundle.name)
