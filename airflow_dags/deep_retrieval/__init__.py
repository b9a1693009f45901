"""What the DAGs share. Imports Airflow and the standard library only."""
