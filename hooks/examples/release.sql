-- What the Parquet files of a release answer. Run it where `parts` lies: duckdb < release.sql

-- The worst prompts of each engine.
SELECT engine, id, category, first_divergence, mean_kl, max_kl
FROM 'parts/tokens/*/*.parquet'
WHERE kind = 'prompt'
QUALIFY row_number() OVER (PARTITION BY engine ORDER BY mean_kl DESC, id) <= 5
ORDER BY engine, mean_kl DESC, id;

-- Where the greedy runs part: prompts by first divergence, in bins of ten tokens.
SELECT engine, first_divergence // 10 * 10 AS from_token, count(*) AS prompts
FROM 'parts/tokens/*/*.parquet'
WHERE kind = 'prompt' AND first_divergence IS NOT NULL
GROUP BY ALL ORDER BY ALL;

-- Equal greedy tokens by category.
SELECT engine, category, sum(matches) / sum(tokens) AS greedy_match, count(*) AS prompts
FROM 'parts/tokens/*/*.parquet'
WHERE kind = 'prompt'
GROUP BY ALL ORDER BY ALL;

-- How the divergence grows with the position.
SELECT engine, place, avg(value) AS mean_kl
FROM (
    SELECT engine, unnest(kl) AS value, generate_subscripts(kl, 1) - 1 AS place
    FROM 'parts/tokens/*/*.parquet'
    WHERE kind = 'prompt'
)
GROUP BY ALL ORDER BY ALL;
